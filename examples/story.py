"""A writer, a partner and a studio: from joining by wallet to a licence fee that is split, paid and final on the chain.

    .venv/bin/byline up                   # in another terminal
    .venv/bin/python examples/story.py    # prints each step; about half a minute, most of it waiting for batches

Everything goes through REST, as a web page would do it, with wallets made on the spot. Two things an outsider could
not do: the studio's role is given by `byline people grant`, which works on the exchange's own machine, and the studio's
money is test money of the embedded chain.

What to look at: `Person.ask` is all there is to the protocol (a bearer token, and an Idempotency-Key for what must
happen once); amounts are decimal strings; each line of the split names the batch and the digest that settled it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ED25519 = b"\0"
TEXT = "The letter was heavier than it looked, and nobody had asked who would carry it over the border. "


class Person:
    """An Ed25519 wallet of Sui, and the session that it opens."""

    def __init__(self, base: str, name: str) -> None:
        self.base, self.name, self.token = base, name, ""
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()
        self.address = "0x" + hashlib.blake2b(ED25519 + self.public, digest_size=32).hexdigest()

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """The answer's `data`, once the limits of REST allow it. Ends the program with the exchange's own words if it
        is no success."""
        request = urllib.request.Request(f"{self.base}{path}", method=method)
        if body:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        if self.token:
            request.add_header("authorization", f"Bearer {self.token}")
        if method == "POST":
            request.add_header("idempotency-key", uuid.uuid4().hex)
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            problem = json.load(error)["error"]
            if problem["code"] == "RATE_LIMITED":  # sign-ins are few a minute: nothing was done yet
                time.sleep(problem["details"]["retry_seconds"])
                return self.ask(method, path, **body)
            sys.exit(f"{method} {path}: {problem['code']} {problem['message']} {problem['details']}")
        except urllib.error.URLError as error:
            sys.exit(f"{self.base}: {error.reason}. Does `byline up` run?")

    def signed(self, purpose: str) -> dict[str, str]:
        """A nonce, signed as a wallet signs a personal message: Blake2b of the intent, the length and the text."""
        nonce = self.ask("POST", "/v1/auth/nonce", address=self.address, purpose=purpose)
        text, length = nonce["message"].encode(), b""
        number = len(text)
        while number >= 128:
            length, number = length + bytes([number & 127 | 128]), number >> 7
        digest = hashlib.blake2b(b"\3\0\0" + length + bytes([number]) + text, digest_size=32).digest()
        signature = base64.b64encode(ED25519 + self.key.sign(digest) + self.public).decode()
        return {"address": self.address, "nonce": nonce["nonce"], "signature": signature}

    def join(self) -> Person:
        session = self.ask("POST", "/v1/auth/verify", **self.signed("sign_in"))
        self.token, self.id = session["access_token"], session["account_id"]
        print(f"{self.name} has joined with the wallet {self.address[:10]}…")
        return self

    def until(self, path: str, holds: Callable[[Any], bool], what: str) -> Any:
        while not holds(found := self.ask("GET", path)):
            if sys.stdout.isatty():
                print(f"\r  waiting for {what} …", end="", flush=True)
            time.sleep(0.5)
        if sys.stdout.isatty():
            print(end="\r\x1b[K")
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api", default="http://127.0.0.1:7400", help="where REST listens (%(default)s)")
    parser.add_argument("--data", default=".data", help="data directory of the exchange (%(default)s)")
    options = parser.parse_args()
    Person(options.api, "nobody").ask("GET", "/v1/time")
    if not Path(options.data, "run").is_dir():  # known before anybody joins
        sys.exit(f"{options.data} is no data directory of an exchange that runs: name it with --data")
    writer, painter, studio = (Person(options.api, name).join() for name in ("the writer", "the painter", "the studio"))
    granting = [sys.executable, "-m", "byline.cli", "people", "grant", studio.address, "studio", "--data", options.data]
    subprocess.run(granting, check=True, stdout=subprocess.DEVNULL)

    writer.ask("POST", "/v1/creators", display_name="Ada Ink")
    work = writer.ask("POST", "/v1/works", kind="story", title=f"The Ink Road {uuid.uuid4().hex[:6]}", genres=["drama"])
    inside = f"/v1/works/{work['id']}"
    chapter = writer.ask("POST", f"{inside}/chapters", title="One", body=TEXT * 3)
    writer.ask("POST", f"/v1/chapters/{chapter['id']}/publish")
    writer.ask("POST", f"{inside}/publish")
    print(f"published: {work['title']}")

    # A sign-in of the last ten minutes is proof enough for this; later it needs a step-up, as a payment does.
    asked = writer.ask("POST", "/v1/copyrights", work_id=work["id"])
    (record,) = writer.until(
        f"{inside}/registrations", lambda rows: rows[0]["status"] not in ("pending", "submitted"), "the registration"
    )
    (version, *_) = writer.ask("GET", f"{inside}/versions")
    named = json.loads(version["content"])["chapters"]
    assert hashlib.sha256(version["content"].encode()).hexdigest() == record["sha256"], "the list is what is registered"
    assert named[0]["sha256"] == hashlib.sha256((TEXT * 3).encode()).hexdigest(), "and it has the chapter's digest"
    print(f"{record['status']} on the chain: object {record['object_id']}\n  anybody may look: {asked['check_url']}")

    lines = [{"account_id": writer.id, "role": "producer", "bps": 7_000},
             {"account_id": painter.id, "role": "collaborator", "bps": 3_000}]  # fmt: skip
    rule = writer.ask("PUT", f"{inside}/royalty-rules", lines=lines)
    rule = painter.ask("POST", f"{inside}/royalty-rules/consent", rule_id=rule["id"], agree=True)
    terms = writer.ask(
        "POST", f"{inside}/license-terms", license_type="exclusive", base_fee="100.01", territories=["PG", "AU"],
        duration="P2Y", scope=["adapt"], revenue_share_bps=500,
    )  # fmt: skip
    studio.ask("POST", "/v1/faucet", assets=["USDC"])
    application = studio.ask("POST", "/v1/license-applications", terms_id=terms["id"], purpose="A film of it.")
    granted = writer.ask("POST", f"/v1/license-applications/{application['id']}/approve")
    path = f"/v1/licenses/{granted['license_id']}"
    studio.ask("POST", "/v1/auth/step-up", **studio.signed("step_up"))  # more than 50 USDC a day from a balance
    studio.ask("POST", f"{path}/pay")
    licence = studio.until(path, lambda row: row["status"] == "active", "the payment")
    print(f"the studio has paid 100.01 USDC; its licence runs until {licence['ends_at'][:10]}")
    print(f"  anybody may check: {options.api}/v1/authorizations/{licence['verification_code']}")

    names = {writer.id: writer.name, painter.id: painter.name, None: "the platform"}
    found = writer.until(
        f"/v1/royalties/works/{work['id']}",
        lambda found: found["distributions"] and all(line["digests"] for line in found["distributions"][0]["lines"]),
        "the split to be final on the chain (a batch every ten seconds)",
    )
    for line in found["distributions"][0]["lines"]:
        settled = f"batch {line['batch']}, transaction {line['digests'][0]}"
        print(f"  {names[line['account_id']]:<13} {line['amount']:>12} USDC   {settled}")


if __name__ == "__main__":
    main()
