"""What a schema cannot say of a good request, said to schemathesis: what was drawn to be accepted is mended here, so
that an answer of 400 to it is a fault of the cloud or of its document. What was drawn to be refused goes as it is."""

import base64
import copy
import datetime
import os
import uuid

import requests
import schemathesis
from hypothesis import strategies
from schemathesis.transport.serialization import Binary

# Made by scripts/schemathesis.sh. Codes of places that are not there are 400s, which the contract's stories hold.
PROGRAMME, SITE, TIME_ZONE = "MBG", "DAPUR-1", "Asia/Jakarta"
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
LEAVING = "sepeda merah tua"
EMAIL, PASSWORD = os.environ.get("EMAIL", ""), os.environ.get("PASSWORD", "")


def is_guessed_at_once(password):
    """One character again and again, which is all that drawn passwords have of what is refused."""
    return isinstance(password, str) and len(set(password.lower())) < 2


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not isinstance(case.body, dict):
        return
    path = case.operation.path
    # Wrong guesses would make our own account wait; whose address it is comes from answers that were drawn on.
    if path == "/api/auth/login" and str(case.body.get("email")).lower() == EMAIL.lower():
        case.body = {**case.body, "email": "someone.else@example.com"}
    if leaves(case) and PASSWORD and "Authorization" in (case.headers or {}):
        leave_as_somebody_new(case)
    # Bytes that were looked at once more would be no text to schemathesis, and so drawn to be refused.
    if case.meta.generation.mode.is_positive and "profile_picture" not in case.body:
        # What was drawn may be the start of what is drawn next.
        case.body = copy.deepcopy(case.body)
        mend(case, path, case.body)


def leaves(case):
    return case.operation.path == "/api/users/me" and case.method == "DELETE"


def leave_as_somebody_new(case):
    """Whose account is deleted is nobody that the other requests need."""
    name = "u" + uuid.uuid4().hex
    account = {"email": f"{name}@warga.example", "username": name, "password": LEAVING}
    joined = requests.post(f"{case.operation.base_url.rstrip('/')}/api/auth/register", json=account, timeout=20)
    case.headers = {**case.headers, "Authorization": f"Bearer {joined.json()['token']}"}


def mend(case, path, body):
    # A key names one request: with another body it is refused.
    if "Idempotency-Key" in (case.headers or {}):
        case.headers = {**case.headers, "Idempotency-Key": str(uuid.uuid4())}
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
    # A signature, which nobody can draw.
    if path == "/api/gateways/enrol":
        body.pop("signing", None)
    # Segments number their records, and their columns are as long as that: lumbung_shared::wire has properties for it.
    # The document says it in words: a run comes once, and 0 is not a run's.
    for number, run in enumerate(body.get("runs") or (), 1):
        run.pop("streams", None)
        run["epoch"] = f"{number:016x}"
