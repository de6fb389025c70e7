"""People of the API bench: a fresh wallet signs in by the public door, and gets its role as an operator gives it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import dataclass
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.api_load import Connection
from byline.people import grant_role
from byline.settings import Settings
from platform_api.identity.sui_signature import ED25519, address_text, personal_message_digest

__all__ = ["Person", "join"]


@dataclass(frozen=True, slots=True)
class Person:
    account_id: str
    headers: dict[str, str]

    def once(self) -> dict[str, str]:
        """The headers of a request that is made once: with a fresh Idempotency-Key."""
        return {**self.headers, "idempotency-key": uuid4().hex}


async def join(settings: Settings, connection: Connection, name: str, role: str) -> Person:
    """Signs in with a new wallet. `role` creator: with a profile, which gives the role; any other by the operator."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    address = address_text(hashlib.blake2b(bytes([ED25519]) + public, digest_size=32).digest())
    nonce = await connection.data("POST", "/v1/auth/nonce", {"address": address})
    signed = bytes([ED25519]) + key.sign(personal_message_digest(nonce["message"].encode())) + public
    body = {"address": address, "nonce": nonce["nonce"], "signature": base64.b64encode(signed).decode()}
    session = await connection.data("POST", "/v1/auth/verify", body)
    person = Person(session["account_id"], {"authorization": f"Bearer {session['access_token']}"})
    if role == "creator":
        await connection.data("POST", "/v1/creators", {"display_name": name}, person.headers)
    else:
        await asyncio.to_thread(grant_role, settings, person.account_id, role, (), take_away=False)
    return person
