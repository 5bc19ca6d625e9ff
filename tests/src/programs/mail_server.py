# A real SMTP server (aiosmtpd) for stories: STARTTLS and AUTH are demanded, every mail that was taken is a line in
# a file, and the address says what happens to it:
#   tunda…@   450 at the first try, taken at the second        tolak…@   550, always
#   putus…@   the server dies at RCPT, before it took it       mati…@    it dies after it took it, before it says so
#   lambat…@  taken at once, answered after a long time    ditahan…@ taken at once, answered when it may be
# A life that was cut short is not repeated: what has died or put off once goes on normally.
import asyncio, email, email.policy, json, os, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

port, folder, username, password = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]


def first_time(address):
    path = os.path.join(folder, "seen-" + address)
    if os.path.exists(path):
        return False
    open(path, "w").close()
    return True


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("tolak"):
            return f"550 5.1.1 <{address}> unknown here"
        if address.startswith("tunda") and first_time(address):
            return "450 4.2.1 try again later"
        if address.startswith("putus") and first_time(address):
            os._exit(9)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        to = envelope.rcpt_tos[0]
        line = {
            "to": to,
            "from": str(mail["from"]),
            "subject": str(mail["subject"]),
            "message_id": str(mail["message-id"]),
            "text": mail.get_body(("plain",)).get_content(),
            "html": mail.get_body(("html",)).get_content(),
            "tls": session.ssl is not None,
            "user": (session.auth_data or b"").decode(),
        }
        with open(os.path.join(folder, "mails.jsonl"), "a") as mails:
            mails.write(json.dumps(line) + "\n")
            mails.flush()
            os.fsync(mails.fileno())
        if to.startswith("mati") and first_time(to):
            os._exit(9)
        if to.startswith("lambat") and first_time(to):
            await asyncio.sleep(60)
        while to.startswith("ditahan") and not os.path.exists(os.path.join(folder, "may-answer")):
            await asyncio.sleep(0.02)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (username.encode(), password.encode())
    return AuthResult(success=good, auth_data=data.login)


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(os.path.join(folder, "certificate.pem"), os.path.join(folder, "key.pem"))


class Server(Controller):
    def factory(self):
        return SMTP(
            self.handler,
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticate,
            hostname="localhost",
        )


server = Server(Handler(), hostname="127.0.0.1", port=port)
server.start()
print("listening", flush=True)
asyncio.new_event_loop().run_forever()
