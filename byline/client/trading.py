"""A trading client over websockets: commands as awaitable calls, private events as an iterator.

One task reads; every call gets a request id and a future. Answers are the plain JSON objects of the protocol, with
decimals as strings: this library computes nothing with money. A lost connection fails every open call with
OutcomeUnknownError: the command may or may not have been executed, and sending it again under the same client_id (or
ref) is safe, because the exchange answers `duplicate`.

Bounds: `events_max` private events wait for the iterator; when none is taken for a second, later ones are left
out and the iterator is told (EventsMissed); answers go on.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import websockets
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect

from byline.client.errors import (
    CommandError,
    ConnectionLost,
    OutcomeUnknownError,
    Rejected,
    SignInFailed,
)
from byline.client.event_queue import EventQueue
from byline.client.keys import public_key, sign_in_signature
from byline.client.plain import Amount, plain
from byline.client.tls import tls_options

__all__ = ["TradingClient"]

PROTOCOL = "byline.json.v1"
_TOLD = {"status", "error", "resumed", "shutdown", "protection", "receipt", "settled", "latency"}

Observer = Callable[[dict[str, Any]], Awaitable[None]]
"""Is given every message of a connection, answers too, in the order in which they came."""


class TradingClient:
    """Make one with `connect`; it is an async context manager."""

    def __init__(
        self, socket: ClientConnection, hello: dict[str, Any], signed_in: dict[str, Any], events_max: int,
        observer: Observer | None = None,
    ) -> None:  # fmt: skip
        self.hello = hello
        self.signed_in = signed_in
        self.accounts: list[str] = signed_in["accounts"]
        self.scopes: list[str] = signed_in["scopes"]
        self._socket = socket
        self._rid = 0
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events = EventQueue(events_max)
        self._lost: str | None = None
        self._observer = observer
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls, url: str, key: Ed25519PrivateKey, *, timeout_s: float = 10.0, events_max: int = 10_000,
        resume: int | None = None, cancel_on_disconnect: bool | None = None, ssl: ssl.SSLContext | None = None,
        observer: Observer | None = None,
    ) -> Self:  # fmt: skip
        """Connect and sign in.

        resume: the last sequence seen; private events after it come first, then a `resumed`, then live ones. Acks of
            what is sent meanwhile come at once: who resumes by an `OrderTracker` sends nothing before `resumed`.
        cancel_on_disconnect: False: what this session places outlives the connection.
        observer: takes the events in place of `events`, and every answer before its caller gets it.
        ssl: for `wss://` URLs; left out, the default context: the authorities that this machine trusts.

        Raises:
            SignInFailed: the key is unknown, or its signature does not fit.
            ConnectionLost: the exchange is not there, or refused the connection.
        """
        try:
            async with asyncio.timeout(timeout_s):
                socket = await connect(
                    url, subprotocols=[websockets.Subprotocol(PROTOCOL)], compression=None, max_size=2**24,
                    **tls_options(ssl),
                )  # fmt: skip
                hello = json.loads(await socket.recv())
                body = {
                    "op": "sign_in", "key": public_key(key), "nonce": hello["nonce"],
                    "signature": sign_in_signature(key, hello["environment"], hello["epoch"], hello["nonce"]),
                    "resume": resume, "cancel_on_disconnect": cancel_on_disconnect,
                }  # fmt: skip
                await socket.send(json.dumps({name: value for name, value in body.items() if value is not None}))
                answer = json.loads(await socket.recv())
        except (OSError, websockets.WebSocketException, TimeoutError) as error:
            raise ConnectionLost(f"{url}: {type(error).__name__} {error}") from error
        if answer.get("type") != "signed_in":
            await socket.close()
            raise SignInFailed(answer)
        return cls(socket, hello, answer, events_max, observer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session. Open calls fail with OutcomeUnknownError."""
        await self._socket.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._end("closed by this client")

    async def wait_closed(self) -> str:
        """Why the connection ended, once it has."""
        await asyncio.wait([self._reader])
        return self._lost or ""

    async def comes(self, awaited: asyncio.Future[Any]) -> bool:
        """Whether `awaited`, which the observer completes, does so before the connection ends."""
        ended = asyncio.create_task(self.wait_closed())
        try:
            first: list[asyncio.Future[Any]] = [awaited, ended]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        return awaited.done()

    async def request(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send any command of the protocol and return its answer, `rejected` and `duplicate` included.

        Decimals are texts or `Decimal`; None is left out.

        Raises:
            CommandError: the gateway refused it, or nothing was sent, for a value is none that the wire has (a float).
            OutcomeUnknownError: the connection ended before the answer.
        """
        if self._lost is not None:
            raise ConnectionLost(self._lost)
        body = plain(command)
        self._rid += 1
        rid = self._rid
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[rid] = future
        try:
            await self._socket.send(json.dumps({"rid": rid} | body))
            answer = await future
        except websockets.ConnectionClosed as error:
            raise OutcomeUnknownError(str(error)) from error
        finally:
            self._open.pop(rid, None)
            if future.done() and not future.cancelled():
                future.exception()  # where sending failed as well, that was the one to raise
        if answer.get("type") == "error":
            raise CommandError(answer)
        return answer

    async def command(self, op: str, **fields: Any) -> dict[str, Any]:
        """Like `request`, but a `rejected` answer raises Rejected."""
        answer = await self.request({"op": op} | fields)
        if answer.get("event") == "rejected":
            raise Rejected(answer)
        return answer

    async def place(
        self, market: str, client_id: str, side: str, type: str, *, size: Amount | None = None,
        budget: Amount | None = None, price: Amount | None = None, stop_price: Amount | None = None,
        tif: str | None = None, expires_at: int | None = None,
        post_only: bool | None = None, display_size: Amount | None = None, stp: str | None = None,
        oco_with: str | None = None, session: str | None = None, account: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Place an order; decimals are texts or `Decimal`, never floats.

        Returns the ack: `accepted`, or `duplicate` for a known client_id.

        type: `limit`, `market`, `stop` (becomes market at stop_price), `stop_limit`.
        budget: quote to spend, fees included, in place of `size`: buys of type market and stop.
        tif: `gtc`, `ioc`, `fok`, or `gtd` with expires_at (ns since 1970, UTC).
        display_size: an iceberg shows no more than that at a time.
        oco_with: client_id of the other order of a pair, one a limit, one a waiting stop: when one trades or
            triggers, the other is canceled.
        """
        return await self.command(
            "place", market=market, client_id=client_id, side=side, type=type, size=size, budget=budget, price=price,
            stop_price=stop_price, tif=tif, expires_at=expires_at, post_only=post_only, display_size=display_size,
            stp=stp, oco_with=oco_with, session=session, account=account,
        )  # fmt: skip

    async def cancel(
        self, *, client_id: str | None = None, order_id: int | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Cancel one order by one of its ids."""
        return await self.command("cancel", client_id=client_id, order_id=order_id, **fields)

    async def replace(
        self, *, client_id: str | None = None, order_id: int | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Change price, size (the new total), stop_price or new_client_id of an order."""
        return await self.command("replace", client_id=client_id, order_id=order_id, **fields)

    async def mass_cancel(self, **fields: Any) -> dict[str, Any]:
        """Cancel all orders that fit market, side, session (all given)."""
        return await self.command("mass_cancel", **fields)

    async def kill(self, account: str | None = None) -> dict[str, Any]:
        """Cancel all orders and refuse new ones until `rearm`."""
        return await self.command("kill", account=account)

    async def rearm(self, account: str | None = None) -> dict[str, Any]:
        """Take new orders again after a `kill`."""
        return await self.command("rearm", account=account)

    async def cancel_after(self, at: int, account: str | None = None) -> dict[str, Any]:
        """Cancel all orders at `at` (ns since 1970, UTC), unless a later call moves it; 0 ends it."""
        return await self.command("cancel_after", at=at, account=account)

    async def poison(self, client_id: str, account: str | None = None) -> dict[str, Any]:
        """Make sure that this id is never accepted from now on. `duplicate` if it was: then see its status."""
        return await self.command("poison", client_id=client_id, account=account)

    async def withdraw(self, asset: str, amount: str, ref: str, **fields: Any) -> dict[str, Any]:
        """Withdraw; needs the scope withdraw."""
        return await self.command("withdraw", asset=asset, amount=amount, ref=ref, **fields)

    async def transfer(self, ref: str, legs: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """Move money between accounts; needs the scope transfer."""
        return await self.command("transfer", ref=ref, legs=legs, **fields)

    async def open_orders(self, account: str | None = None) -> list[dict[str, Any]]:
        """The open orders of an account (the key's first, if not given)."""
        return list((await self.request({"op": "open_orders", "account": account}))["orders"])

    async def balances(self, account: str | None = None) -> dict[str, dict[str, str]]:
        """Balances by asset, each with `available` and `held`."""
        answer = await self.request({"op": "balances", "account": account})
        return {row["asset"]: {"available": row["available"], "held": row["held"]} for row in answer["balances"]}

    async def ping(self) -> None:
        """One round trip through the gateway."""
        await self.request({"op": "ping"})

    async def status(self) -> dict[str, Any]:
        """Where the exchange stands; operator keys only."""
        return await self.request({"op": "status"})

    async def register_key(
        self, key: str, accounts: list[str], scopes: list[str], label: str = "", **restrictions: Any
    ) -> dict[str, Any]:
        """Register a public key for accounts; operator keys only.

        restrictions: markets, collar_ppm, addresses, expires_at, tier, protection (docs/protocol/order-entry.md).
        """
        body = {"op": "register_key", "key": key, "accounts": accounts, "scopes": scopes, "label": label}
        return await self.request(body | restrictions)

    async def resolve(self, client_id: str, account: str | None = None) -> dict[str, Any]:
        """What became of a client id: `outcome` never_received, rejected, accepted, final or poisoned."""
        return await self.request({"op": "resolve", "client_id": client_id, "account": account})

    async def whoami(self) -> dict[str, Any]:
        """The key's rights and limits, and what is left of them."""
        return await self.request({"op": "whoami"})

    async def latency(self, interval_ms: int | None = None) -> dict[str, Any]:
        """How long the stages of this key's commands and of all took. With an interval also told again and again,
        as an event, until asked with 0."""
        return await self.request({"op": "latency", "interval_ms": interval_ms})

    async def sessions(self) -> list[dict[str, Any]]:
        """The living sessions of this key; of all keys for an operator."""
        return list((await self.request({"op": "sessions"}))["sessions"])

    async def quote(
        self, market: str, quote_id: str, bid: tuple[str, str] | None, ask: tuple[str, str] | None, *,
        post_only: bool | None = None, account: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Make the quote so: (price, size) of each side, None withdraws it. Returns how each side then stands."""
        sides = {
            side: {"price": terms[0], "size": terms[1]} for side, terms in (("bid", bid), ("ask", ask)) if terms
        }
        body = {"op": "quote", "market": market, "quote_id": quote_id, "post_only": post_only, "account": account}
        return await self.request(body | sides)

    async def resolve_quote(self, quote_id: str, account: str | None = None) -> dict[str, Any]:
        """What became of the last order of each side of a quote, as `resolve` tells it; `is_poisoned`."""
        return await self.request({"op": "resolve", "quote_id": quote_id, "account": account})

    async def poison_quote(self, quote_id: str, account: str | None = None) -> dict[str, Any]:
        """Make sure that no `quote` of this id places or moves anything from now on. What stands goes on standing."""
        return await self.command("poison", quote_id=quote_id, account=account)

    async def reset_protection(self) -> bool:
        """Take orders again after the key's protection tripped. False: it had not."""
        return bool((await self.request({"op": "reset_protection"}))["had_tripped"])

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Private events of the accounts, and what else is told unasked, as they come. Ends with the connection.

        Raises EventsMissed where it was too slow; a new call goes on behind the gap.
        """
        while (event := await self._events.take()) is not None:
            yield event

    async def _read(self) -> None:
        reason = "closed"
        try:
            async for text in self._socket:
                message = json.loads(text)
                if self._observer is not None:
                    await self._observer(message)
                future = self._open.get(message.get("rid"))
                if future is not None:
                    if not future.done():
                        future.set_result(message)
                elif self._observer is not None:
                    continue
                elif "event" in message or message.get("type") in _TOLD:
                    await self._events.put(message)
        except websockets.ConnectionClosed as error:
            reason = str(error)
        finally:
            self._end(f"{reason} {self._socket.close_reason or ''}".strip())

    def _end(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        for future in self._open.values():
            if not future.done():
                future.set_exception(OutcomeUnknownError(reason))
        self._events.end()
