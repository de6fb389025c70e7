"""`byline deposit` and `byline withdraw`: a user's own money in and out, with the key of a Sui wallet.

A user's tool, not the operator's: it knows the exchange by its REST address and the chain by the node's, and signs with
a key file of its own (64 hex digits, readable by its owner alone; made if it is missing). Money goes in by the user's
own transaction, `settlement::deposit` of the vault; it comes out by a request that the wallet signs word for word. On
the embedded chain gas and test coins come from its faucets; on a real network the wallet must own both.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from engine.messages.errors import Refused, SettingsInvalid, Unavailable
from files.durable import make_directory, make_once
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui.faucet import FAUCET_KEY
from settlement.chain.wallet import WalletChain

__all__ = ["deposit", "withdraw"]

GAS_MIST = 20_000_000_000
WAIT_S = 120.0
"""How long a step is waited for before this says where it stands and ends; what was begun goes on."""


class _Wallet:
    """An Ed25519 key, and the session that it opens at REST."""

    def __init__(self, path: Path, api: str, console: Console) -> None:
        self.seed = _seed(path, console)
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self._http = httpx.Client(base_url=api, timeout=30)
        self._api = api
        self.address = OperatorKey(self.seed).address

    def sign_in(self) -> None:
        nonce = self.ask("POST", "/v1/auth/nonce", address=self.address)
        signature = self.sign(nonce["message"])
        found = self.ask("POST", "/v1/auth/verify", address=self.address, nonce=nonce["nonce"], signature=signature)
        self._http.headers["authorization"] = f"Bearer {found['access_token']}"

    def sign(self, text: str) -> str:
        """As wallets sign a personal message: Blake2b of the intent, the length (ULEB128) and the text."""
        message, length = text.encode(), b""
        number = len(message)
        while number >= 128:
            length, number = length + bytes([number & 127 | 128]), number >> 7
        digest = hashlib.blake2b(b"\3\0\0" + length + bytes([number]) + message, digest_size=32).digest()
        return base64.b64encode(b"\0" + self._key.sign(digest) + self._key.public_key().public_bytes_raw()).decode()

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """The answer's data. Raises Refused with the exchange's words, Unavailable."""
        headers = {"idempotency-key": uuid.uuid4().hex} if method == "POST" else {}
        try:
            answer = self._http.request(method, path, headers=headers, json=body or None)
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._api}: {error}; does the exchange run?") from error
        if answer.status_code >= 400:
            problem = answer.json()["error"]
            raise Refused(_told(problem))
        return answer.json()["data"]

    def until(self, path: str, holds: Callable[[Any], Any], what: str, console: Console) -> Any:
        """What `path` answers once it holds. Raises Unavailable after WAIT_S."""
        end = time.monotonic() + WAIT_S
        with console.status(f"waiting for {what} …"):
            while not holds(found := self.ask("GET", path)):
                if time.monotonic() > end:
                    raise Unavailable(f"{what} takes longer than usual: look at GET {path} later; nothing is lost")
                time.sleep(0.3)
        return found


def deposit(api: str, node: str, key: Path, asset: str, amount: str, *, console: Console) -> None:
    """Pays `amount` in on the chain and waits until the exchange has booked it.

    Raises:
        Refused: by the exchange, the chain, or because the wallet owns too little.
        Unavailable: one of the two does not answer, or it takes long.
    """
    wallet = _Wallet(key, api, console)
    wallet.sign_in()
    route = wallet.ask("POST", "/v1/deposits", asset=asset)
    units = _units(amount, route["scale"])
    console.print(f"wallet       {wallet.address}", soft_wrap=True)
    console.print(f"call         {route['package']}::{route['function']}<{route['coin_type']}>", soft_wrap=True)
    for item in route["arguments"]:
        value = f"a coin of {amount} {asset}" if item["value"] is None else item["value"] or "(empty)"
        console.print(f"  {item['name']:<11}{value}", soft_wrap=True, markup=False)
    digest = asyncio.run(_pay_in(node, wallet.seed, route, units))
    console.print(f"executed     {digest} on {route['chain']}", soft_wrap=True)
    wallet.until(
        "/v1/deposits", lambda rows: any(digest in row["ref"] for row in rows), "the exchange to see it", console
    )
    console.print(f"[bold green]booked[/]       {amount} {asset}; trade with it, or `byline withdraw`", soft_wrap=True)


def withdraw(api: str, key: Path, asset: str, amount: str, address: str | None, *, console: Console) -> None:
    """Asks for a withdrawal to the wallet's own address (or an allowed one), signs it, and waits until it is paid.

    Raises as `deposit`.
    """
    wallet = _Wallet(key, api, console)
    wallet.sign_in()
    to = {"address": address} if address else {}
    asked = wallet.ask("POST", "/v1/withdrawals", asset=asset, amount=amount, **to)
    console.print("signing, word for word:")
    console.print(asked["message"], soft_wrap=True, markup=False)
    path = f"/v1/withdrawals/{asked['id']}"
    wallet.ask("POST", f"{path}/confirm", signature=wallet.sign(asked["message"]))
    found = wallet.until(
        path, lambda row: row["status"] in ("settled", "failed", "canceled"), "the batch that pays it", console
    )
    if found["status"] != "settled":
        raise Refused(f"the withdrawal is {found['status']}: {found['reason']}")
    console.print(
        f"[bold green]paid[/] {amount} {asset} to {found['address']} in batch {found['batch']}, {found['digest']} on "
        f"{found['chain']}", soft_wrap=True,
    )  # fmt: skip


async def _pay_in(node: str, seed: bytes, route: dict[str, Any], units: int) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        chain = WalletChain.at(node, Path(scratch) / "wallet", OperatorKey(seed), route["package"])
        try:
            if route["embedded"] and await chain.mist() < GAS_MIST:
                tap = WalletChain.at(node, Path(scratch) / "faucet", FAUCET_KEY, route["package"])
                try:
                    await tap.send_sui(chain.address, GAS_MIST)
                finally:
                    await tap.close()
            return await chain.deposit(route, units)
        finally:
            await chain.close()


def _told(problem: dict[str, Any]) -> str:
    """A failure of REST in a line; its field stands in its message."""
    details = dict(problem.get("details") or {})
    reason = details.pop("reason", "")
    details.pop("field", None)
    more = ", ".join(f"{name} {value}" for name, value in details.items())
    return f"{problem['code']} {reason}: {problem['message']}" + (f" ({more})" if more else "")


def _units(amount: str, scale: int) -> int:
    """Smallest units of a decimal amount. Raises Refused."""
    try:
        units = Decimal(amount).scaleb(scale)
        if units == int(units) and 0 < units < 1 << 63:
            return int(units)
    except (ArithmeticError, ValueError):
        pass  # refused below, in words
    raise Refused(f"amount {amount}: must be a decimal above zero and below 2^63 units, with at most {scale} decimals")


def _seed(path: Path, console: Console) -> bytes:
    """The key of a wallet file, made if it is missing. Raises SettingsInvalid."""
    if not path.exists():
        make_directory(path.parent)
        make_once(path, os.urandom(32).hex().encode() + b"\n", mode=0o600)
        console.print(f"new wallet   {path}: keep it, it is the money", soft_wrap=True)
    if path.stat().st_mode & 0o077:
        raise SettingsInvalid(f"{path}: others may read this key; chmod 600 it")
    try:
        seed = bytes.fromhex(path.read_text().strip())
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise SettingsInvalid(f"{path}: a wallet's key is 64 hex digits")
    return seed
