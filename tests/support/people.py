"""Somebody with a wallet who uses a running exchange through REST alone, with real signatures."""

from __future__ import annotations

from typing import Any, Self
from uuid import uuid4

import httpx

from tests.unit.platform_api.test_sui_signature import Wallet

__all__ = ["Person"]


class Person:
    """`id` is the account's once `sign_in` has been called."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http, self.wallet = http, Wallet(0)
        self.bearer: dict[str, str] = {}
        self.id = ""

    async def answer(self, method: str, path: str, /, **body: Any) -> httpx.Response:
        """Whatever the answer is; each POST has an Idempotency-Key of its own."""
        key = {"idempotency-key": uuid4().hex} if method == "POST" else {}
        sent = {"json": body} if body else {}
        return await self.http.request(method, path, headers=self.bearer | key, **sent)

    async def data(self, method: str, path: str, /, **body: Any) -> Any:
        """The `data` of a good answer."""
        answer = await self.answer(method, path, **body)
        assert answer.status_code < 300, answer.text
        return answer.json()["data"]

    async def proof(self, purpose: str) -> dict[str, str]:
        """A signed nonce, as the body of a request."""
        nonce = await self.data("POST", "/v1/auth/nonce", address=self.wallet.address, purpose=purpose)
        signature = self.wallet.sign(nonce["message"].encode())
        return {"address": self.wallet.address, "nonce": nonce["nonce"], "signature": signature}

    async def sign_in(self) -> Self:
        session = await self.data("POST", "/v1/auth/verify", **await self.proof("sign_in"))
        self.bearer, self.id = {"authorization": "Bearer " + session["access_token"]}, session["account_id"]
        return self

    async def step_up(self) -> None:
        """A fresh signature, for what needs one."""
        await self.data("POST", "/v1/auth/step-up", **await self.proof("step_up"))
