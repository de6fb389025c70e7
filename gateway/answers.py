"""Answers to the questions of clients: what stands in the engine, the registry and the gateway, as JSON objects.

A question that reads the engine is looked at when it is asked (`look`) and told when everything submitted before it is
released: the core is always ahead of what may be told. What follows the released events (open orders, refusals) is read
when it is told. Nothing here changes anything but the registry of keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeGuard

from numpy.typing import NDArray

from engine.messages.codes import ABSENT, OrderStatus, OrderType, RejectCode, Side, TimeInForce
from engine.messages.directory import Directory
from engine.messages.ports import Clock
from gateway.hub import Counters
from gateway.keys import ApiKey, KeyRefused, KeyRegistry, Scope
from gateway.names import Names
from gateway.orders import OpenOrders
from gateway.quotes import Quotes, poison_id
from gateway.rejections import Rejections
from gateway.restrictions import FIELDS
from gateway.sequencer import Sequencer
from gateway.session import Ask, Session
from gateway.settings import GatewaySettings
from gateway.stages import Stages

__all__ = ["LATENCY_INTERVALS_MS", "Answers", "CoreState", "SessionFacts"]

LATENCY_INTERVALS_MS = (1_000, 5_000, 60_000)


class CoreRoom(Protocol):
    @property
    def accounts(self) -> int: ...
    @property
    def refs(self) -> int: ...


class CoreState(Protocol):
    """What the gateway reads of the engine beside applying commands; dtypes as `engine.core` publishes them."""

    @property
    def batch(self) -> int:
        """Cuts so far."""

    @property
    def limits(self) -> CoreRoom:
        """Bounds of its tables."""

    @property
    def ref_count(self) -> int:
        """Refs of commands that are kept."""

    @property
    def sequence(self) -> int:
        """Of the last command applied."""

    def describe(self) -> NDArray[Any]: ...
    def open_orders(self) -> NDArray[Any]: ...
    def balances_of(self, account: int, /) -> NDArray[Any]: ...
    def client_id_state(self, account: int, client_id: bytes, /) -> tuple[int, int, int, int] | None: ...
    def is_poisoned(self, account: int, client_id: bytes, /) -> bool: ...
    def ids_known_since(self, account: int, /) -> int: ...
    def state_hash(self) -> bytes: ...


class SessionFacts(Protocol):
    """What the server knows of living sessions."""

    def facts_of(self, session: Session) -> dict[str, Any]:
        """Session number, address, age and rights of one that has signed in."""

    def living(self) -> Iterable[Session]:
        """Those that have signed in."""

    def end_of_key(self, key: ApiKey) -> None:
        """End the sessions of a key that was revoked, and cancel what they placed."""

    def tell(self, body: dict[str, Any]) -> int:
        """Send it to every session that has signed in; how many these are."""

    def key_uses(self, taken_ns: int | None) -> dict[str, int]:
        """When sessions of keys last began or ended: key to ns, of those not `taken` yet."""

    def reset_protection(self, key: ApiKey) -> bool:
        """False: none has tripped."""

    def follow_latency(self, session: Session, interval_ms: int) -> None:
        """Tell it `latency` so often; 0: no more."""


class Answers:
    """One method for each question: from its fields to the object that answers it. Raises KeyRefused."""

    def __init__(
        self, settings: GatewaySettings, sequencer: Sequencer, state: CoreState, names: Names, directory: Directory,
        orders: OpenOrders, rejections: Rejections, keys: KeyRegistry, clock: Clock, counters: Counters,
        sessions: SessionFacts, journal_status: Callable[[], str], stages: Stages, quotes: Quotes,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._sequencer = sequencer
        self._state = state
        self._names = names
        self._entries = directory
        self._orders = orders
        self._rejections = rejections
        self._keys = keys
        self._clock = clock
        self._counters = counters
        self._facts = sessions
        self._journal_status = journal_status
        self._stages = stages
        self._quotes = quotes
        self._started_ns = time.monotonic_ns()

    def look(self, ask: Ask) -> None:
        """Read of the engine what this question needs, into its fields. Raises KeyRefused."""
        if ask.what == "balances":
            ask.fields["found"] = self._balances(ask.fields)
        elif ask.what == "status":
            ask.fields["found"] = self.status()
        elif ask.what == "quoted":
            for side in ("bid", "ask"):
                if side in ask.fields:
                    ask.fields[side] |= self._child(ask.fields["account"], ask.fields[side]["client_id"])
        elif ask.what == "resolve":
            self._look_at_id(ask.fields)
        elif ask.what == "resolve_quote":
            account, quote_id = self._account_of(ask.fields), ask.fields["quote_id"]
            ask.fields["sequence"] = self._sequencer.sequence
            ask.fields["poisoned"] = self._state.is_poisoned(account, poison_id(quote_id).encode())
            ask.fields["since"] = self._quotes.since
            children = self._quotes.children(account, quote_id)
            ask.fields["sides"] = sides = {
                side: {"account": ask.fields["account"], "client_id": name} for side, name in children.items()
            }
            for fields in sides.values():
                self._look_at_id(fields)

    def _look_at_id(self, fields: dict[str, Any]) -> None:
        account, client_id = self._account_of(fields), fields["client_id"].encode()
        fields["index"] = account
        fields["sequence"] = self._sequencer.sequence
        fields["found"] = self._state.client_id_state(account, client_id)
        fields["poisoned"] = self._state.is_poisoned(account, client_id)
        fields["since"] = self._state.ids_known_since(account)

    def body(self, ask: Ask, session: Session) -> dict[str, Any]:
        """The answer. Raises KeyRefused; OSError of the registry comes through."""
        answer: dict[str, Any] = getattr(self, f"_{ask.what}")(ask.fields, session)
        return answer

    # ---------------------------------------------------------------- orders and money

    def _account_of(self, fields: dict[str, Any]) -> int:
        index = self._names.account_index(fields["account"])
        if index is None:
            raise KeyRefused("unknown_account", "account", "an account that exists")
        return int(index)

    def _open_orders(self, fields: dict[str, Any], _: Session) -> dict[str, Any]:
        orders = [self._order_body(order) for order in self._orders.of_account(self._account_of(fields))]
        released = self._sequencer.released_sequence
        return {"type": "open_orders", "account": fields["account"], "sequence": released, "orders": orders}

    def _order_body(self, order: dict[str, Any]) -> dict[str, Any]:
        """An open order on the wire: its fields as in `accepted`, `status` and `leaves`."""
        entry = self._entries.markets[order["market"]]
        amount = entry.quote.text if order["budget"] else entry.size_text
        body = {
            "order_id": order["order_id"], "client_id": order["client_id"], "market": entry.name,
            "side": Side(order["side"]).word, "type": OrderType(order["type"]).word,
            "tif": TimeInForce(order["tif"]).word, "status": OrderStatus(order["status"]).word,
            "budget" if order["budget"] else "size": amount(order["size"]), "leaves": amount(order["leaves"]),
        }  # fmt: skip
        for field, text in (
            ("price", entry.price_text), ("stop_price", entry.price_text), ("display_size", entry.size_text),
            ("expires_at", int),
        ):  # fmt: skip
            if order[field] != ABSENT:
                body[field] = text(order[field])
        return body

    def _balances(self, fields: dict[str, Any], _: Session | None = None) -> dict[str, Any]:
        if "found" in fields:
            found: dict[str, Any] = fields["found"]
            return found
        balances = []
        for row in self._state.balances_of(self._account_of(fields)):
            asset = self._entries.assets[int(row["asset"])]
            available, held = asset.text(int(row["available"])), asset.text(int(row["held"]))
            balances.append({"asset": asset.name, "available": available, "held": held})
        sequence = self._sequencer.sequence
        return {"type": "balances", "account": fields["account"], "sequence": sequence, "balances": balances}

    def _resolve(self, fields: dict[str, Any], _: Session) -> dict[str, Any]:
        """The one true outcome of a client id, as of `sequence`: everything up to it is durable where acks are."""
        body = {
            "type": "resolved", "account": fields["account"], "client_id": fields["client_id"],
            "sequence": fields["sequence"],
        }  # fmt: skip
        if fields["found"] is not None:
            status, order_id, market, filled = fields["found"]
            entry = self._entries.markets[market]
            is_open = status in (OrderStatus.WAITING, OrderStatus.OPEN)
            amount = entry.quote.text if self._orders.is_in_quote(order_id) else entry.size_text
            return body | {
                "outcome": "accepted" if is_open else "final", "order_id": order_id, "market": entry.name,
                "status": OrderStatus(status).word, "filled": amount(filled),
            }  # fmt: skip
        if fields["poisoned"]:
            return body | {"outcome": "poisoned", "not_accepted_since": fields["since"]}
        refused = self._rejections.find(fields["index"], fields["client_id"].encode())
        if refused is not None:
            sequence, reason = refused
            return body | {
                "outcome": "rejected", "rejected_sequence": sequence, "reason": RejectCode(reason).word,
                "not_accepted_since": fields["since"],
            }  # fmt: skip
        since = max(fields["since"], self._rejections.since(fields["index"]))
        return body | {"outcome": "never_received", "since": since, "not_accepted_since": fields["since"]}

    def _resolve_quote(self, fields: dict[str, Any], session: Session) -> dict[str, Any]:
        """What became of the last order of each side of a quote, as of `sequence`."""
        body = {
            "type": "quote_resolved", "account": fields["account"], "quote_id": fields["quote_id"],
            "sequence": fields["sequence"], "is_poisoned": fields["poisoned"],
        }  # fmt: skip
        for side in ("bid", "ask"):
            if side in fields["sides"]:
                told = self._resolve(fields["sides"][side], session)
                body[side] = {name: told[name] for name in told if name not in ("type", "account", "sequence")}
            else:
                body[side] = {"outcome": "never_received", "since": fields["since"]}
        return body

    def _child(self, account: str, client_id: str) -> dict[str, Any]:
        """How one side of a quote stands; `refused`: it is no order."""
        index = self._names.account_index(account)
        state = None if index is None else self._state.client_id_state(index, client_id.encode())
        if state is None:
            return {"status": "refused"}
        status, order_id, market, filled = state
        text = self._entries.markets[market].size_text(filled)
        return {"status": OrderStatus(status).word, "order_id": order_id, "filled": text}

    def _quoted(self, fields: dict[str, Any], _: Session) -> dict[str, Any]:
        for side in ("bid", "ask"):
            if fields.get(side, {}).get("status") == "refused":
                refused = self._rejections.find(self._account_of(fields), fields[side]["client_id"].encode())
                if refused is not None:
                    fields[side]["reason"] = RejectCode(refused[1]).word
        return {"type": "quoted"} | fields

    # ---------------------------------------------------------------- keys and sessions

    def _whoami(self, _: dict[str, Any], session: Session) -> dict[str, Any]:
        assert session.key is not None, "only a signed-in session asks"
        key = session.key
        facts = self._facts.facts_of(session)
        return {"type": "whoami", **_key_body(key), **facts, "sequence": self._sequencer.released_sequence}

    def _latency(self, fields: dict[str, Any], session: Session) -> dict[str, Any]:
        assert session.key is not None, "only a signed-in session asks"
        interval_ms = fields.get("interval_ms")
        if interval_ms is not None:
            if type(interval_ms) is not int or interval_ms not in (0, *LATENCY_INTERVALS_MS):
                words = ", ".join(map(str, LATENCY_INTERVALS_MS))
                raise KeyRefused("bad_value", "interval_ms", f"one of {words}, or 0 to end it")
            self._facts.follow_latency(session, interval_ms)
        return self.latency(session.key)

    def latency(self, key: ApiKey, venue: dict[str, Any] | None = None) -> dict[str, Any]:
        """Histograms of the key's own commands and of the venue's, since the start: gateway.stages.

        `venue`: the venue's of this moment, if the caller has them already.
        """
        return {
            "type": "latency", "key": key.key, "sequence": self._sequencer.released_sequence,
            "stages": self._stages.of_key(key.key), "venue": venue or self._stages.of_venue(),
        }  # fmt: skip

    def _of_key(self, session: Session) -> list[dict[str, Any]]:
        assert session.key is not None, "only a signed-in session asks"
        every = Scope.OPERATOR in session.key.scopes
        found = []
        for one in self._facts.living():
            if one.key is not None and (every or one.key.key == session.key.key):
                facts = self._facts.facts_of(one) | {"label": one.key.label, "is_this": one is session}
                found.append({"key": one.key.key, **facts} if every else facts)
        return found

    def _sessions(self, _: dict[str, Any], session: Session) -> dict[str, Any]:
        return {"type": "sessions", "sessions": self._of_key(session)}

    def _reset_protection(self, _: dict[str, Any], session: Session) -> dict[str, Any]:
        assert session.key is not None, "only a signed-in session asks"
        if session.key.restrictions.protection is None:
            raise KeyRefused("bad_value", "op", "the key has a protection")
        return {"type": "protection_reset", "had_tripped": self._facts.reset_protection(session.key)}

    def _register_key(self, fields: dict[str, Any], _: Session) -> dict[str, Any]:
        accounts = fields.get("accounts", [])
        for name in accounts if isinstance(accounts, list) else []:
            if not isinstance(name, str) or self._names.account_index(name) is None:
                raise KeyRefused("unknown_account", "accounts", "accounts that exist")
        markets = fields.get("markets")
        for name in markets if isinstance(markets, list) else []:
            if not isinstance(name, str) or self._names.market_index(name) is None:
                raise KeyRefused("unknown_market", "markets", "markets that exist")
        tier = fields.get("tier")
        if tier is not None and tier not in {known.name for known in self._settings.tiers}:
            known = ", ".join(known.name for known in self._settings.tiers)
            raise KeyRefused("bad_value", "tier", f"one of {known}")
        entry = self._keys.register(
            fields.get("key", ""), accounts, fields.get("scopes", []), fields.get("label", ""), self._clock.now_ns(),
            {name: fields[name] for name in FIELDS if fields.get(name) is not None},
        )  # fmt: skip
        return {"type": "key_registered", **_key_body(entry)}

    def _revoke_key(self, fields: dict[str, Any], _: Session) -> dict[str, Any]:
        key = fields.get("key", "")
        known = self._keys.find(key) if isinstance(key, str) else None
        label = fields.get("label")
        if label is not None and known is not None and known.label != label:
            raise KeyRefused("unknown_key", "label", "the label that the key was registered with")
        self._keys.revoke(key, self._clock.now_ns())
        if known is not None:
            self._facts.end_of_key(known)
        return {"type": "key_revoked", "key": key}

    def _key_uses(self, fields: dict[str, Any], _: Session) -> dict[str, Any]:
        taken = fields.get("taken")
        if taken is not None and not _is_count(taken):
            raise KeyRefused("bad_value", "taken", "ns since 1970")
        uses = self._facts.key_uses(taken)
        return {"type": "key_uses", "keys": [{"key": key, "used_at": at_ns} for key, at_ns in uses.items()]}

    def _settled(self, fields: dict[str, Any], _: Session) -> dict[str, Any]:
        """The back office says that a batch is final; everyone who has signed in is told."""
        batch, first, last = (fields.get(name) for name in ("batch", "first_sequence", "last_sequence"))
        if not (_is_count(batch) and _is_count(first) and _is_count(last)) or first > last:
            raise KeyRefused("bad_value", "batch", "batch, first_sequence and last_sequence above 0 and in order")
        digests, words = fields.get("digests"), [fields.get(name) for name in ("chain", "executor")]
        if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
            raise KeyRefused("bad_value", "digests", "a list of transaction digests")
        if not all(isinstance(word, str) for word in words):
            raise KeyRefused("bad_value", "chain", "chain and executor as text")
        body = {
            "type": "settled", "batch": batch, "first_sequence": first, "last_sequence": last,
            "digests": digests, "chain": words[0], "executor": words[1],
        }  # fmt: skip
        return {"type": "told", "sessions": self._facts.tell(body)}

    # ---------------------------------------------------------------- the exchange

    def _directory(self, _: dict[str, Any], __: Session) -> dict[str, Any]:
        return {"type": "directory"} | self._names.directory()

    def _describe(self, _: dict[str, Any], __: Session) -> dict[str, Any]:
        return {"type": "describe"} | self._names.describe()

    def _status(self, fields: dict[str, Any], _: Session) -> dict[str, Any]:
        return {"type": "status", **fields["found"]}

    def status(self) -> dict[str, Any]:
        """Where the exchange stands, for `status` and for the status file of the process."""
        sequencer = self._sequencer
        seconds = (time.monotonic_ns() - self._started_ns) / 1e9
        return {
            "environment": self._settings.environment,
            "epoch": self._settings.epoch,
            "ack_mode": self._settings.ack_mode,
            "journal": self._journal_status(),
            "journal_errno": sequencer.journal_errno,
            "sequence": sequencer.sequence,
            "released_sequence": sequencer.released_sequence,
            "batch": self._state.batch,
            "durable_sequence": sequencer.durable_sequence,
            "chain": f"{sequencer.chain:016x}",
            "state_hash": self._state.state_hash().hex(),
            "pending": sequencer.pending,
            "ticks": sequencer.ticks,
            "cancel_only": bool(sequencer.cancel_only),
            "sessions": self._counters.sessions,
            "open_orders": self._orders.count,
            "accounts": len(self._entries.accounts),
            "accounts_max": self._state.limits.accounts,
            "refs": self._state.ref_count,
            "refs_max": self._state.limits.refs,
            "acks_per_s": round(self._counters.acks / seconds) if seconds else 0,
            "counters": self._counters.as_dict(),
        }


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value > 0


def _key_body(key: ApiKey) -> dict[str, Any]:
    return {
        "key": key.key, "label": key.label, "accounts": key.accounts, "scopes": key.scopes.words(),
        **key.restrictions.fields(),
    }  # fmt: skip
