"""Money in and out as users move it: REST signs in, asks and confirms; deposits are a wallet's own transactions.

Nothing here waits for a batch: what was asked is left to the exchange, and `follow` sees what becomes of it. Whatever
got no answer is asked again under its idempotency key. A deposit that got none may stand on the chain, or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import ssl
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.messages.errors import ExchangeError, Unavailable
from platform_api.identity import sui_signature as sui
from settlement.chain.keys import OperatorKey
from settlement.chain.localsui.faucet import FAUCET_KEY
from settlement.chain.wallet import WalletChain
from tests.faults.load import ASSETS, Numbers
from tests.support.exchange import ExchangeProcess
from tests.unit.platform_api.test_sui_signature import Wallet

__all__ = ["CLOSED", "PLAIN", "PaidIn", "Purse", "TakenOut", "chain_of"]

GAS_MIST = 100_000_000_000
CLOSED = ("settled", "canceled", "failed")
LOST = (httpx.HTTPError, ExchangeError, OSError, asyncio.TimeoutError)
PAUSE_S = 0.4
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP, instead of one for each: the authorities of this machine take a while to read."""


@dataclass(slots=True)
class TakenOut:
    """A withdrawal with a document. `document` is the last that was told of it; none: nothing was."""

    key: str
    asset: str
    amount: str
    is_called_off: bool
    """It is cancelled instead of confirmed."""
    document: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""

    @property
    def units(self) -> int:
        return int(Decimal(self.amount).scaleb(ASSETS[self.asset]))

    @property
    def status(self) -> str:
        return "refused" if self.refusal else str(self.document.get("status", "unknown"))


@dataclass(slots=True)
class PaidIn:
    """A deposit. Without a digest nobody has said whether it took effect."""

    asset: str
    amount: str
    digest: str = ""


class _NoAnswer(Unavailable):
    """REST could not say now: nothing can be concluded."""


@dataclass
class Purse:
    """One wallet and its account. `going` and `idle` as a trader's."""

    exchange: ExchangeProcess
    directory: Path
    name: str
    seed: int
    numbers: Numbers
    account: str = ""
    outs: list[TakenOut] = field(default_factory=list)
    ins: list[PaidIn] = field(default_factory=list)
    going: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        draw = random.Random(f"{self.name} {self.seed}")
        seed = draw.randbytes(32)
        self.key = OperatorKey(seed)
        self._wallet = Wallet(sui.ED25519)  # type: ignore[no-untyped-call]
        self._wallet.key = Ed25519PrivateKey.from_private_bytes(seed)
        self._wallet.public = self._wallet.key.public_key().public_bytes_raw()
        self._draw, self._bearer = draw, ""
        self._keys = (f"{self.name}-{number}" for number in itertools.count())
        self._routes: dict[str, Any] = {}

    async def open(self) -> None:
        """Opens its account by signing in, and gets gas."""
        await self._sign_in()
        route = await self._route("USDC")
        tap = chain_of(self.exchange, self.directory / "faucet", FAUCET_KEY, route["package"])
        try:
            await tap.send_sui(self.key.address, GAS_MIST)
        finally:
            await tap.close()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self.going.is_set():
                self.idle.set()
                await self.going.wait()
            self.idle.clear()
            with contextlib.suppress(*LOST):
                await self._act()
            if self.going.is_set():
                await asyncio.sleep(PAUSE_S)

    async def follow(self) -> bool:
        """One step further with every withdrawal; whether all are over."""
        for out in self.open_ones():
            with contextlib.suppress(*LOST):
                await self._follow(out)
        return not self.open_ones()

    async def booked(self) -> set[tuple[str, str, str]]:
        """Ref, asset and amount of every deposit that REST shows. Raises one of LOST."""
        rows: set[tuple[str, str, str]] = set()
        path = "/v1/deposits?limit=100"
        cursor = ""
        while True:
            answer = await self._ask("GET", path + cursor)
            rows |= {(row["ref"], row["asset"], row["amount"]) for row in answer["data"]}
            following = (answer.get("pagination") or {}).get("next_cursor")
            if not following:
                return rows
            cursor = f"&cursor={following}"

    def open_ones(self) -> list[TakenOut]:
        """Its withdrawals that are not over."""
        return [out for out in self.outs if out.status not in (*CLOSED, "refused")]

    async def _act(self) -> None:
        for out in self.open_ones():
            if out.status in ("unknown", "requested", "held"):
                await self._follow(out)
        asset = self._draw.choice(list(ASSETS))
        if self._draw.random() < 0.5:
            await self._pay_in(asset)
        else:
            key, amount = next(self._keys), self.numbers.next(asset)
            self.outs.append(TakenOut(key, asset, amount, self._draw.random() < 0.2))
            await self._follow(self.outs[-1])

    async def _follow(self, out: TakenOut) -> None:
        """One step further. Raises one of LOST."""
        if not out.document:
            try:
                body = {"asset": out.asset, "amount": out.amount}
                out.document = (await self._ask("POST", "/v1/withdrawals", out.key, body))["data"]
            except httpx.HTTPStatusError as error:
                out.refusal = error.response.text
            return
        path = f"/v1/withdrawals/{out.document['id']}"
        if out.status != "held":
            out.document = (await self._ask("GET", path))["data"]
            return
        try:
            if out.is_called_off:
                out.document = (await self._ask("DELETE", path))["data"]
            else:
                body = {"signature": self._wallet.sign(out.document["message"].encode())}
                out.document = (await self._ask("POST", f"{path}/confirm", f"{out.key}-sign", body))["data"]
        except (httpx.HTTPStatusError, _NoAnswer):  # it may stand elsewhere by now
            out.document = (await self._ask("GET", path))["data"]

    async def _pay_in(self, asset: str) -> None:
        route = await self._route(asset)
        self.ins.append(PaidIn(asset, self.numbers.next(asset)))
        chain = chain_of(self.exchange, self.directory / self.name, self.key, route["package"])
        try:
            units = int(Decimal(self.ins[-1].amount).scaleb(ASSETS[asset]))
            self.ins[-1].digest = await chain.deposit(route, units)
        finally:
            await chain.close()

    async def _route(self, asset: str) -> Any:
        if asset not in self._routes:
            key = f"{self.name}-route-{asset}-{self._draw.random()}"
            self._routes[asset] = (await self._ask("POST", "/v1/deposits", key, {"asset": asset}))["data"]
        return self._routes[asset]

    async def _sign_in(self) -> None:
        async with self._http() as http:
            nonce = await http.post("/v1/auth/nonce", json={"address": self.key.address})
            nonce.raise_for_status()
            told = nonce.json()["data"]
            signature = self._wallet.sign(told["message"].encode())
            body = {"address": self.key.address, "nonce": told["nonce"], "signature": signature}
            session = await http.post("/v1/auth/verify", json=body)
            session.raise_for_status()
        self._bearer, self.account = session.json()["data"]["access_token"], session.json()["data"]["account"]

    async def _ask(self, method: str, path: str, key: str = "", body: dict[str, Any] | None = None) -> Any:
        """The answer. Raises HTTPStatusError where it is refused for good, else one of LOST."""
        headers = {"authorization": f"Bearer {self._bearer}"} | ({"idempotency-key": key} if key else {})
        async with self._http() as http:
            answer = await http.request(method, path, headers=headers, json=body)
        if answer.status_code == 401 and "/confirm" not in path:
            await self._sign_in()
            raise _NoAnswer("signed in again")
        if answer.status_code in (409, 429) or answer.status_code >= 500:
            raise _NoAnswer(answer.text)
        answer.raise_for_status()
        return answer.json()

    def _http(self) -> httpx.AsyncClient:
        api = self.exchange.status("api")
        if "port" not in api:
            raise _NoAnswer("the API does not run")
        return httpx.AsyncClient(base_url=f"http://{api['host']}:{api['port']}", timeout=20, verify=PLAIN)


def chain_of(exchange: ExchangeProcess, directory: Path, key: OperatorKey, package: str) -> WalletChain:
    """The embedded chain, as a wallet sees it. Raises Unavailable."""
    status = exchange.status("chain")
    if "port" not in status:
        raise Unavailable("the chain does not run")
    directory.mkdir(parents=True, exist_ok=True)
    return WalletChain.at(f"http://{status['host']}:{status['port']}", directory, key, package)
