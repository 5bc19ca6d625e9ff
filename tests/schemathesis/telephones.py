"""Stands in for a provider of text messages: takes each (POST, as cloud.toml's sms.body has it by default) and says,
when it is asked (GET /+62…), which code the last one to a number held. Prints its port."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

codes = {}


class Telephones(BaseHTTPRequestHandler):
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if code := re.search(r"\b\d{6}\b", message["text"]):
            codes[message["to"]] = code[0]
        self.answer(200, "")

    def do_GET(self):
        code = codes.get(self.path[1:])
        self.answer(200 if code else 404, code or "")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Telephones)
print(server.server_port, flush=True)
server.serve_forever()
