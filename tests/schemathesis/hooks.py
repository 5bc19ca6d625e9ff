"""What a schema cannot say of a good request, said to schemathesis: what was drawn to be accepted is mended here, so
that an answer of 400 to it is a fault of the cloud or of its document. What was drawn to be refused goes as it is."""

import base64
import copy
import datetime
import itertools
import os
import random
import re
import uuid

import requests
import schemathesis
from hypothesis import strategies
from schemathesis.transport.serialization import Binary

# Made by scripts/schemathesis.sh. Codes of places that are not there are 400s, which the contract's stories hold.
PROGRAMME, SITE, TIME_ZONE, GATEWAY = "MBG", "DAPUR-1", "Asia/Jakarta", "GW-1"
# A point of P-256 and the browser's secret beside it, as in the document's example.
PUSH_KEYS = {
    "p256dh": "BLn9b-VR0ca83knDNZ32dCHGyjJp-1riX9ZTN40MqV8K_LpQmLqxC_DoHvqvFXO_nGdAB4W9dogZb_sM-uV4JbY",
    "auth": "_ordMnz7uTCmrpBTeUV4Bw",
}
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
# What is uploaded is known by what is in it.
schemathesis.openapi.format("binary", strategies.just(Binary(PICTURE)))
TOKEN = re.compile(r"Bearer eyJ[\w-]+\.[\w-]+\.[\w-]+")
LEAVING = "sepeda merah tua"
EMAIL, PASSWORD = os.environ.get("EMAIL", ""), os.environ.get("PASSWORD", "")
GATEWAY_KEY = os.environ.get("GATEWAY_KEY", "")
SIGNING = {"public_key": os.environ.get("SIGNING_KEY", ""), "proof": os.environ.get("PROOF", "")}
# Where what was texted to a number can be asked for: telephones.py.
TELEPHONES = os.environ.get("TELEPHONES", "")
# A person is sent few codes a day: as often our own account gives a number.
MOST_NUMBERS, given = 4, itertools.count()
# Somebody whose number was sent a code that nobody has used yet: their header and the number.
asked = []


def is_guessed_at_once(password):
    """One character again and again, which is all that drawn passwords have of what is refused."""
    return isinstance(password, str) and len(set(password.lower())) < 2


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None:
        return
    path = case.operation.path
    # A key names one request: with another body it is refused. What is drawn of its pattern is no UUID at times.
    if "Idempotency-Key" in (case.headers or {}) and case.meta.generation.mode.is_positive:
        case.headers = {**case.headers, "Idempotency-Key": str(uuid.uuid4())}
    if path == "/api/sync_gateway_data" and isinstance(case.body, list) and case.meta.generation.mode.is_positive:
        # A gateway speaks for itself alone.
        case.body = [record | {"gateway_id": GATEWAY} for record in case.body]
    if not isinstance(case.body, dict):
        return
    # Wrong guesses would make our own account wait; whose address it is comes from answers that were drawn on.
    if path == "/api/auth/login" and str(case.body.get("email")).lower() == EMAIL.lower():
        case.body = {**case.body, "email": "someone.else@example.com"}
    # A header that was drawn to be refused stays as it is.
    session = PASSWORD and TOKEN.fullmatch((case.headers or {}).get("Authorization") or "")
    if leaves(case) and session:
        # Whose account is deleted is nobody that the other requests need.
        case.headers = {**case.headers, **somebody_new(case)}
    # Bytes that were looked at once more would be no text to schemathesis, and so drawn to be refused.
    if case.meta.generation.mode.is_positive and "profile_picture" not in case.body:
        # What was drawn may be the start of what is drawn next.
        case.body = copy.deepcopy(case.body)
        mend(case, path, case.body, session)


def leaves(case):
    return case.operation.path == "/api/users/me" and case.method == "DELETE"


def somebody_new(case):
    """The header of an account that was made for this."""
    name = "u" + uuid.uuid4().hex
    account = {"email": f"{name}@warga.example", "username": name, "password": LEAVING}
    joined = requests.post(address(case, "/api/auth/register"), json=account, timeout=20)
    return {"Authorization": f"Bearer {joined.json()['token']}"}


def address(case, path):
    return case.operation.base_url.rstrip("/") + path


def number():
    """One that nobody else has: a person and a number are sent few text messages a day."""
    return f"+62812{uuid.uuid4().int % 10**9:09}"


def has_a_code(case):
    """The header and the code of somebody who was sent one. It takes a while to arrive, so each asks for the next one's,
    and the first one is the one who guesses."""
    code = None
    if asked:
        sent = requests.get(f"{TELEPHONES}/{asked[0][1]}", timeout=20)
        code = (asked.pop(0)[0], sent.text) if sent.ok else None
    if not asked:
        asked.append((somebody_new(case), number()))
        header, phone = asked[0]
        phones = address(case, "/api/notifications/phone")
        requests.put(phones, json={"phone_number": phone}, headers=header, timeout=20).raise_for_status()
    return code


def mend(case, path, body, session):
    # References to what must be there.
    for name, known in (("programme", PROGRAMME), ("site", SITE), ("time_zone", TIME_ZONE)):
        if isinstance(body.get(name), str):
            body[name] = known
    # Either, not both: the document says so in words.
    if path.endswith("/grants"):
        body.pop("programme" if body.get("site") else "site", None)
        if not body.get("site"):
            body["programme"] = PROGRAMME
    # Ends lie ahead.
    end = body.get("expires_at")
    if isinstance(end, str):
        body["expires_at"] = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).isoformat()
    # A good password is not easily guessed, and one is changed by who knows it. It stays the same, so that the
    # session's owner can sign in again.
    if "current_password" in body:
        body["current_password"] = body["new_password"] = PASSWORD
    if path == "/api/users/me/email":
        body["password"] = PASSWORD
    for name in ("password", "new_password"):
        if is_guessed_at_once(body.get(name)):
            body[name] = "sepeda merah tua"
    # What tells of an account's safety cannot be turned off.
    for wish in body.get("preferences") or ():
        wish["enabled"] = True
    # Keys that some browser could have given, at a service that the internet reaches.
    if leaves(case):
        body["password"] = LEAVING
    if path.endswith("/push-subscriptions"):
        body["endpoint"], body["keys"] = "https://push.example.com/wake/1", PUSH_KEYS
    if path == "/api/webhooks":
        body["url"] = "https://operator.example.com/lumbung"
    # Signatures, which nobody can draw.
    if path == "/api/gateways/enrol" and body.get("signing"):
        body["key"], body["signing"] = GATEWAY_KEY, SIGNING
    if path == "/api/gateways/signing_key":
        body.update(SIGNING)
    if session and path == "/api/notifications/phone":
        body["phone_number"] = number()
        if next(given) >= MOST_NUMBERS:
            case.headers = {**case.headers, **somebody_new(case)}
    if session and path == "/api/notifications/phone/verify" and (found := has_a_code(case)):
        header, body["code"] = found
        case.headers = {**case.headers, **header}
    # The document says it in words: a run comes once, and 0 is not a run's.
    if body.get("runs"):
        body["statuses"] = ["makanan_keluar", *(body.get("statuses") or ())]
    for place, run in enumerate(body.get("runs") or (), 1):
        run["epoch"] = f"{place:016x}"
        # Most runs are drawn without any record.
        drawn = run.get("streams") or {"": [{"seq": place, "n": place}]}
        run["streams"] = streams(drawn, random.Random(repr(run)))


def streams(drawn, draw):
    """Under the names that the cloud knows first, in any order; what was drawn beyond them is of streams that it does not know."""
    known = {"scan": scans, "reading": readings, "event": events}
    names = itertools.chain(draw.sample(sorted(known), len(known)), (f"stream-{number}" for number in itertools.count()))
    return {
        name: [segment(one, known.get(name), draw) for one in segments]
        for name, segments in zip(names, drawn.values())
    }


def segment(drawn, columns, draw):
    """Segments number their records and their columns are as long as that, which no schema can say. A third of the
    columns stay as they were drawn: such records go into quarantine."""
    n = 1 + int(drawn["n"]) % 9
    mended = {**drawn, "seq": 1 + int(drawn["seq"]) % 2**62, "n": n}
    if drawn.get("step") is not None:
        # A list of nothing would be taken for one that is not there.
        mended["step"] = [0, *(1 + abs(step) % 1000 for step in draw.choices(drawn["step"] or [0], k=n - 1))]
    if "cols" not in drawn or columns and draw.random() < 2 / 3:
        times = {
            "t": [draw.randrange(10**6) for _ in range(n)],
            "offset": [[0, draw.randrange(1_700_000_000_000, 1_800_000_000_000)]],
            "clock": [[0, draw.choice(["unset", "held", "synced"])]],
        }
        mended["cols"] = times | columns(n, draw)
    return mended


def scans(n, draw):
    some = [i for i in range(n) if draw.random() < 1 / 2]
    return {
        "tag": [draw.choice(["04A22B1C5D0001", "NFC_TAG_ALPHA", "kontainer 7 🍚"]) for _ in range(n)],
        "status": [0] * n,
        "source": [[i, draw.choice(["reader", "phone", "field_manual"])] for i in some],
        "note": [[i, "sup\ttumpah\n"] for i in some],
        "officer": [[i, "P-07"] for i in some],
        "quantity": [[i, draw.randrange(1000) / 8] for i in some],
        "client_ref": [[i, str(uuid.UUID(int=draw.getrandbits(128)))] for i in some],
    }


def readings(n, draw):
    series = [["kulkas/k-1/suhu", "Cel"], ["meter:7", "kWh"], ["pintu", "1"]]
    return {
        "series": series,
        "s": [draw.randrange(len(series)) for _ in range(n)],
        "v": [draw.choice([0, -0.0, 4.5, 1e300, -273.15, 5e-324]) for _ in range(n)],
        "quality": [[0, draw.choice(["good", "implausible"])]],
    }


def events(n, draw):
    return {
        "kind": [draw.choice(["clock_set", "sensor_down", "yang_lain_2"]) for _ in range(n)],
        "body": [draw.choice([{}, {"by_ms": -12}, {"a": [None, {"b": "é\n"}]}]) for _ in range(n)],
    }
