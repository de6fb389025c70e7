"""The auditor: knows what clients said and heard, and what journal a crash left behind; judges by I1 … I14.

It reads no state of the exchange. While a world runs it checks each reply against what it knows; after each recovery it
reads the journal with a reader of its own; at the end it takes the whole history as a drop copy of all accounts hears
it from the first sequence on, and goes through it with a ledger of its own (tests/simulation/model.py).

    reply by reply    I3 nothing told changes      I10 nobody hears of others      I13 no ack behind a failure told
    after a recovery  I8 prefix, chain             I3 each ack and each receipt has its record
                      I14 receipts signed, for what was acked and asked for
                      I12 no cancel refused while its reserve has room, no order without a reason of the disk's
    at the end        I1 I2 I5 I6 by the ledger    I4 I5 one outcome of each       I7 live = replayed
                      I9 all of it, both sides        I14 each change was asked for
                      I4 kills and timers do what they are for    I14 each order ends when it was to (duties.py)
                      I4 each refusal of the core has its reason in the ledger (reasons.py)

One outcome: what happened at a sequence was asked for by a request that was answered with that very sequence, or whose
answer was lost. So nothing happens by a request that was answered with an error, and what was refused by the core
(`rejected`) was refused to somebody who had asked for just that, once for each time he had, and changed nothing.

The reserve: whoever gives up risk is told `busy` only where cancels and the exchange's own commands (cuts, ticks, ends
of sessions) that wait for the disk may have taken all that is kept for them, and `cancel_only` never. Anything else is
told `cancel_only` only while the disk has refused something, and `busy` only then, while it stalls, or where what waits
may have filled the queue. `journal_failed` needs a disk that has failed. Every other error needs a reason in what was
asked, or in the terms of the key (reasons.py): so nobody is told of a limit that he has not.

Each broken invariant is a `Violation` with its number. Nothing is raised: a run goes on, and tells all at its end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from byline.client import ReceiptInvalid, verify_receipt
from byline.client.keys import public_key
from tests.simulation.client import SimulatedClient
from tests.simulation.duties import Duties, Said
from tests.simulation.journal_reader import JournalRead, Unsound, read_journal
from tests.simulation.model import Broken, Ledger, Market, ratio, units
from tests.simulation.network import MS
from tests.simulation.reasons import LIMITS, OPERATOR, bears_out, has_limit, is_wrong

__all__ = ["Auditor", "Violation"]

Json = dict[str, Any]
_TIMES = {"rid", "chain", "t_in", "t_matched", "t_durable", "t_out", "rate_left"}
_MONEY = {"transferred", "pended", "posted", "voided"}
PHASE_KIND, UNCROSS_KIND = 15, 16
_MEETS = {"trade", "prevented", "triggered"}
"""What happens to an order by what others send."""
_SCOPES = {"kill": 17, "rearm": 18, "cancel_after": 19}
"""What `Duties` is told of, and the kind of its record."""
_CHANGES = {"cancel", "replace", "mass_cancel", "kill", "cancel_after"}
_BY_ONE_COMMAND = {"mass": "mass_cancel", "killed": "kill"}
_ALONE_IN_TELLING = {"kill", "rearm", "cancel_after", "poison"}
"""Nobody but clients sends them; the `done` of one names its operation alone."""
_SUBJECTS = ("client_id", "order_id", "ref")
_TRADERS = _CHANGES | {
    "place", "poison", "rearm", "transfer", "withdraw", "resolve", "open_orders", "balances", "status", "directory",
}
"""What a client of accounts may send for these; anything else is the operator's, or nobody's."""
_PHASES = {"phase_changed", "uncrossed"}
_MOVERS = {
    "transferred": {"transfer", "deposit"},
    "pended": {"transfer", "withdraw"},
    "posted": {"post", "withdraw_settled"},
    "voided": {"void", "withdraw_failed"},
}
_BEGUN = {"transferred", "pended"}
"""Of the money of a ref one of these happens once at most; so does one of the others behind it."""
_QUESTIONS = {"resolve", "open_orders", "balances", "status", "directory"}
"""Not in the journal; what they wait in has a bound of its own."""
_GIVE_UP = {"cancel", "mass_cancel", "cancel_after", "kill", "poison"}
"""Of these a part of the queue is kept."""
LONGEST_DUE_NS = 5_500 * MS
"""From sending what sets a time, until that is reached."""
NOTICED_NS = 20_000 * MS
"""From the loss of a link, until the exchange knows."""
CUT_NS = 5_000 * MS
PULLED_NS = 5_000 * MS
"""From the end of a link, when the exchange is told of it, until its orders are gone before anything that is sent then
can meet them: their cancels have a part of the queue, and go before new orders where a disk was full."""
REFUSED_NS = 3_000 * MS
"""From what a disk refused until orders are taken again, if it refuses nothing more: the keeper tries each second."""
FAILED_NS = 2_000 * MS
"""From a failure of the disk until the process that met it is gone: what supervises it waits for a second."""
STALLED_NS = 1_000 * MS
"""From the end of a stall until the queue has room again."""
SLOTS_MOST = 4
"""Of the queue, that a command of these clients takes with a tick before it."""
MAX_TOLD = 10
"""Violations of one invariant that are told."""


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@dataclass(slots=True)
class _Request:
    """What one client sent once, and what it was told of it."""

    client: str
    account: str
    message: Json
    may: bool
    """Whether its key may send it."""
    link: int
    ends: bool
    """Of a place: whether the order is to end with that link."""
    sent_ns: int
    since_ns: int
    """Before this the last command was sent that was known to be durable when this one was sent."""
    in_overload: bool
    """Whether it gives up risk, and the last thing that was heard of an order before is that the exchange is busy."""
    heard_ns: int | None = None
    """When it was answered."""
    answer: str | None = None
    """The event, the type, or `error`."""
    why: str = ""
    """Reason or code of a refusal."""
    sequence: int | None = None
    """Of its ack."""

    def may_be(self, sequence: int) -> bool:
        """Whether the command of that sequence may be this one."""
        return self.answer is None or self.sequence == sequence


@dataclass(slots=True)
class _Told:
    """What one link told of its accounts, since it was signed in."""

    client: str
    accounts: frozenset[str]
    after: int
    """Everything behind this sequence is to be told, in order."""
    last: int = 0
    """The last sequence that was told of, perhaps not wholly."""
    events: set[tuple[int, int, str]] = field(default_factory=set)


class Auditor:
    """A `Witness` of all clients."""

    def __init__(self, queue: tuple[int, int] = (1_024, 64), receipt_key: str = "") -> None:
        """`queue`: slots of the journal's, and how many of them are kept for whoever gives up risk."""
        (self.queue_slots, self.reserve_slots), self.receipt_key = queue, receipt_key
        self.stalls: list[tuple[int, int]] = []
        """[from, to] in which the disk is slow, or what it did is heard of late. Told by the world."""
        self._disk_refused: list[int] = []
        """When the disk refused something."""
        self._disk_failed: list[int] = []
        """When it did so for another reason than want of space."""
        self.full_disk: list[list[int]] = []
        """[from, to] in which a start without space had no more than what was prepared: of that nothing can be kept.
        Told by the world, from what its disk refused."""
        self.receipts: dict[int, Json] = {}
        """By sequence."""
        self._owed: dict[int, _Request] = {}
        """By sequence: what was acked over a link that lives still, and has no receipt yet."""
        self.told_busy = self.passed_others = 0
        """Orders and money told `busy`; commands that gave up risk, sent right behind and taken all the same."""
        self._is_overloaded = False
        self._losses: list[int] = []
        self._dues: list[int] = []
        """When links were lost, and when something was sent that sets a time."""
        self._durable: tuple[int, int] = (0, 0)
        """The largest sequence that was acked, and when its command was sent."""
        self.violations: list[Violation] = []
        self._said: list[tuple[int, str, Any]] = []
        self.requests = 0
        self.replies = 0
        self.scales: dict[str, int] = {}
        self.markets: dict[str, Market] = {}
        self.last_told = 0
        """The largest sequence that anybody was told of."""
        self._sent: dict[tuple[str, int], _Request] = {}
        self._acks: dict[int, _Request] = {}
        """By sequence, whose command it was."""
        self._facts: dict[tuple[Any, ...], Json] = {}
        self._chains: dict[int, str] = {}
        self._asked: dict[tuple[str, str], list[_Request]] = defaultdict(list)
        """(account, client_id) → every place that was sent."""
        self._renamed: set[tuple[str, str]] = set()
        """(account, client_id) that an order may have been given by a replace."""
        self._refs: dict[str, list[_Request]] = defaultdict(list)
        """What those who may have sent under each ref."""
        self._changes: dict[tuple[str, str], list[_Request]] = defaultdict(list)
        """(operation, account, or market of the operator's) → what those who may have sent."""
        self._named: dict[tuple[Any, ...], list[_Request]] = defaultdict(list)
        """What a refusal of the core says of its command → what those who may have sent."""
        self._commands: dict[str, list[_Request]] = defaultdict(list)
        """Operation → what those who may have sent."""
        self._kept: dict[tuple[str, str], bool] = {}
        """(account, client_id) → whether it was never sent as an order that ends with its connection."""
        self._cut_off: set[str] = set()
        """Accounts of which a session was lost."""
        self._link_of: dict[str, int] = {}
        """Client → the last link that it sent something over."""
        self._lost_links: dict[int, int] = {}
        """Link → since when it is over and the exchange knows it, of those that something was sent over."""
        self._resolved: list[tuple[Json, str]] = []
        self._duplicates: list[tuple[Json, str, str]] = []
        self._poisons: dict[tuple[str, str], int] = {}
        self._failed_links: set[int] = set()
        self._closed_links: set[int] = set()
        self._told: dict[int, _Told] = {}
        """By link. Not of one that was refused a resume."""
        self.journal: JournalRead | None = None

    @classmethod
    def of_the_same_requests(cls, other: Auditor) -> Auditor:
        """One that has heard what was asked in that one's world, and is to judge another history of it."""
        auditor = cls()
        auditor.scales, auditor.journal = other.scales, other.journal
        auditor.markets = {
            name: replace(market, bids=[], asks=[], last_trade_id=0, phase="continuous", left_halt_at=0)
            for name, market in other.markets.items()
        }
        auditor._asked, auditor._renamed, auditor._refs = other._asked, other._renamed, other._refs
        auditor._changes, auditor._kept, auditor._cut_off = other._changes, other._kept, other._cut_off
        auditor._named, auditor._commands = other._named, other._commands
        auditor._lost_links, auditor._acks = other._lost_links, other._acks
        auditor._facts = {key: fact for key, fact in other._facts.items() if fact["event"] in _PHASES}
        return auditor

    def blame(self, invariant: str, text: str) -> None:
        if sum(known.invariant == invariant for known in self.violations) < MAX_TOLD:
            self.violations.append(Violation(invariant, text))

    def note(self, now_ns: int, who: str, what: Any) -> None:
        """For the history of a failing seed."""
        self._said.append((now_ns, who, what))
        if len(self._said) > 4_000:
            del self._said[:2_000]

    @property
    def history(self) -> list[str]:
        """The last requests, replies and faults as text."""
        return [f"{now_ns / 1e9:9.3f} {who} {_short(what)}" for now_ns, who, what in self._said]

    # ------------------------------------------------------------ while it runs

    def sent(self, client: SimulatedClient, message: Json) -> None:
        self.requests += 1
        now_ns = client.network.schedule.now_ns
        self.note(now_ns, client.says, message)
        op, account = message["op"], message.get("account") or (client.accounts or [""])[0]
        may = not client.accounts or (op in _TRADERS and {account, *_sources(message)}.issubset(client.accounts))
        link = self._link_of[client.name] = client.link.number if client.link is not None else 0
        ends = message.get("cancel_on_disconnect", client.cancel_on_disconnect is not False)
        ends = ends and "session" not in message
        in_overload = self._is_overloaded and op in _GIVE_UP
        request = _Request(
            client.name, account, message, may, link, ends, now_ns, self._durable[1], in_overload
        )  # fmt: skip
        if "expires_at" in message or op == "cancel_after":
            self._dues.append(now_ns)
        if may:
            self._named[_named(message, account)].append(request)
            self._commands[op].append(request)
        if op == "place" and account in client.accounts:
            key = (account, str(message.get("client_id")))
            self._asked[key].append(request)
            self._kept[key] = self._kept.get(key, True) and not ends
        elif op == "replace" and "new_client_id" in message:
            self._renamed.add((account, str(message["new_client_id"])))
        if account in client.accounts and op in _CHANGES:
            self._changes[op, account].append(request)
        elif not client.accounts and op in ("phase", "uncross"):
            self._changes[op, str(message.get("market"))].append(request)
        if "ref" in message and may:
            self._refs[str(message["ref"])].append(request)
        self._sent[client.name, message["rid"]] = request

    def closed(self, client: SimulatedClient) -> None:
        """The exchange ends the link. Acks of what it had taken may follow still, and nothing else does."""
        if client.link is not None:
            self._closed_links.add(client.link.number)

    def disk_refused(self, now_ns: int, *, has_failed: bool) -> None:
        """The disk has just refused something: because it was told to fail, or for want of space."""
        self._disk_refused.append(now_ns)
        if has_failed:
            self._disk_failed.append(now_ns)

    def answer(self, client: SimulatedClient, rid: int) -> str | None:
        """What this client was told of that request: the event, the type, or `error`; None: nothing yet."""
        return self._sent[client.name, rid].answer

    def why(self, client: SimulatedClient, rid: int) -> str:
        """The reason or code that it was refused with; empty: it was not, or there is no answer yet."""
        return self._sent[client.name, rid].why

    def lost(self, client: SimulatedClient, *, quietly: bool) -> None:
        self._cut_off.update(client.accounts)
        now_ns = client.network.schedule.now_ns
        self._losses.append(now_ns)
        if client.name in self._link_of:
            self._lost_links.setdefault(self._link_of[client.name], now_ns + (NOTICED_NS if quietly else 0))
        self._owed = {sequence: owed for sequence, owed in self._owed.items() if owed.client != client.name}
        self.note(client.network.schedule.now_ns, client.name, "lost its link")

    def heard(self, client: SimulatedClient, message: Json) -> None:
        self.replies += 1
        self.note(client.network.schedule.now_ns, client.said, message)
        kind = message.get("type")
        link = client.link.number if client.link is not None else 0
        request = self._sent.get((client.name, message["rid"])) if "rid" in message else None
        if "rid" in message and request is None and kind not in ("receipt",):
            self.blame("I10", f"{client.name} was answered {message['rid']}, which it never asked")
            return
        self._own_alone(client, message)
        self._follow(client, link, message)
        if request is not None and kind != "receipt":
            request.heard_ns = client.network.schedule.now_ns
        if "chain" in message:
            if link in self._failed_links and kind != "status":  # which tells of what is durable, and acks nothing
                self.blame("I13", f"{client.name} was acked {message['sequence']} after the journal had failed")
            self._acked(client, request, message)
        elif "event" in message:
            self._fact(client, message)
        else:
            if request is not None and kind != "receipt":
                self._answered(request, str(kind))
                request.why = message.get("code", "")
            if kind == "error":
                self._refused(client, request, message)
            if kind == "status" and message.get("journal") == "failed":
                self._failed_links.add(link)
            elif kind == "receipt":
                self._receipt(client, message)
            elif kind == "resolved":
                self._resolved.append((message, client.name))
        if isinstance(message.get("sequence"), int) and kind not in ("resumed",):
            self.last_told = max(self.last_told, message["sequence"])

    def _follow(self, client: SimulatedClient, link: int, message: Json) -> None:
        """Keep what a link tells of its accounts, and from where on."""
        kind, told = message.get("type"), self._told.get(link)
        if link in self._closed_links:
            return
        if kind == "signed_in" and client.accounts:
            self._told[link] = _Told(client.name, frozenset(client.accounts), message["sequence"])
        elif told is None:
            return
        elif kind == "resumed":
            told.after = min(told.after, message["after"])
        elif kind == "error" and message.get("field") == "after":
            del self._told[link]
        elif "event" in message:
            told.last = max(told.last, message["sequence"])
            told.events.add((message["sequence"], message.get("index", 0), _side(message)))

    def _acked(self, client: SimulatedClient, asked: _Request | None, message: Json) -> None:
        sequence, chain = message["sequence"], message["chain"]
        known = self._chains.setdefault(sequence, chain)
        if known != chain:
            self.blame("I3", f"sequence {sequence} was acked with chain {known}, now with {chain}")
        self._fact(client, {"index": 0} | {name: value for name, value in message.items() if name not in _TIMES})
        if asked is None:
            return
        request, event = asked.message, message.get("event", "done")
        if "type" not in message or "event" in message:  # else it tells of what is durable
            owner = self._acks.setdefault(sequence, asked)
            if owner is not asked:
                self.blame("I4", f"sequence {sequence} is the answer to {owner.message} and to {request}")
            asked.sequence = sequence
            if sequence > self._durable[0]:
                self._durable = sequence, asked.sent_ns
            if "receipt" in request:
                self._owed[sequence] = asked
            self.passed_others += asked.in_overload
            self._is_overloaded = self._is_overloaded and asked.in_overload
        self._answered(asked, event)
        asked.why = message.get("reason", "") if event == "rejected" else ""
        if not asked.may:
            self.blame("I14", f"{client.name} may not send {request}, and was told {message}")
        who = request.get("account") or (client.accounts or [""])[0]
        if event == "rejected" and _named(message, message.get("account", who)) != _named(request, who):
            self.blame("I4", f"{client.name}: {request} is answered with a refusal of another command: {message}")
        if event == "accepted" and message.get("client_id") != request.get("client_id"):
            self.blame("I4", f"{client.name}: request {request['rid']} is answered for {message.get('client_id')}")
        if request["op"] == "place" and event == "duplicate":
            account = request.get("account") or client.accounts[0]
            self._duplicates.append((message, account, request["client_id"]))
        if request["op"] == "poison" and event == "done":
            key = (request.get("account") or client.accounts[0], request["client_id"])
            self._poisons.setdefault(key, sequence)
        if request["op"] == "asset" and event == "done":
            self.scales[request["asset"]] = request["scale"]
        if request["op"] == "market" and event == "done":
            self._list(request)

    def _receipt(self, client: SimulatedClient, receipt: Json) -> None:
        try:
            sequence = verify_receipt(receipt, self.receipt_key, client.environment)
        except ReceiptInvalid as error:
            self.blame("I14", f"{client.name} was told a receipt that is none: {error}: {receipt}")
            return
        asked = self._owed.pop(sequence, None)
        if asked is None or asked.client != client.name:
            self.blame("I3", f"{client.name} has a receipt for {sequence}, of which it had no ack, or asked for none")
        self.receipts[sequence] = receipt

    def _list(self, terms: Json) -> None:
        self.markets[terms["market"]] = Market(
            terms["market"], terms["base"], terms["quote"], terms["tick"], terms["lot"], self.scales[terms["base"]],
            self.scales[terms["quote"]], terms["taker_ppm"], terms["maker_ppm"],
        )  # fmt: skip

    def _refused(self, client: SimulatedClient, request: _Request | None, error: Json) -> None:
        """Somebody was told an error; of a command, if there is a request."""
        code, asked = error["code"], request.message if request else "no command"
        if code in LIMITS:
            if not has_limit(self._terms(client), code):
                self.blame("I4", f"{client.name} has no such limit, and was told {error} of {asked}")
        elif code == "internal":
            self.blame("I13", f"{client.name} was told {error} of {asked}")
        elif code == "unavailable":
            if self.receipt_key:
                self.blame("I4", f"{client.name} was told {error} of {asked}, and nothing was away")
        elif request is not None and request.may:
            self._refused_command(request, error)

    def _terms(self, client: SimulatedClient) -> Json:
        """Of its key, as it was registered."""
        key = public_key(client.key)
        found = [asked.message for asked in self._commands["register_key"] if asked.message["key"] == key]
        return found[-1] if found else OPERATOR

    def _refused_command(self, request: _Request, error: Json) -> None:
        """A client was told an error of a command that it may send."""
        code, gives_up = error["code"], request.message["op"] in _GIVE_UP
        if code == "busy":
            self._refused_busy(request, gives_up)
        elif code == "cancel_only":
            if gives_up:
                self.blame("I12", f"{request.client} was told {code} of {request.message}")
            elif not self._has_reason(request, ()):
                self.blame("I12", f"{request.client} was told {code} of {request.message}; the disk refuses nothing")
        elif code == "journal_failed":
            if not self._had_failed(request):
                self.blame("I12", f"{request.client} was told {code} of {request.message}; the disk has not failed")
        elif not (is_wrong(request.message, error, self.markets) or self._is_of_keys(request, code)):
            self.blame("I4", f"{request.client} may send {request.message}, and was told {error}")

    def _refused_busy(self, request: _Request, gives_up: bool) -> None:
        if gives_up:
            waiting, sent_ns, heard_ns = self._may_wait(request), request.sent_ns, request.heard_ns or 0
            had_space = all(heard_ns < from_ns or sent_ns > to_ns for from_ns, to_ns in self.full_disk)
            if waiting < self.reserve_slots - 2 and had_space:
                self.blame("I12", f"{request.client} was told busy of {request.message}; {waiting} like it may wait")
        elif request.message["op"] not in _QUESTIONS:
            self.told_busy += 1
            self._is_overloaded = True
            if not self._has_reason(request, self.stalls):
                waiting = SLOTS_MOST * self._were_under_way(request)
                if waiting < self.queue_slots - self.reserve_slots:
                    self.blame("I12", f"{request.client} was told busy of {request.message}; {waiting} slots wait")

    def _is_of_keys(self, request: _Request, code: str) -> bool:
        """Whether it is a registration that was sent before, or that the disk may not have taken."""
        if request.message["op"] != "register_key":
            return False
        if code == "registry_failed":
            return self._has_reason(request, ())
        same = [asked for asked in self._commands["register_key"] if asked.message["key"] == request.message["key"]]
        return code == "exists" and len(same) > 1

    def _had_failed(self, request: _Request) -> bool:
        """Whether the disk had failed when this was answered, in the life of the exchange that it was sent to."""
        at = bisect_right(self._disk_failed, request.heard_ns or 0)
        return bool(at) and request.sent_ns <= self._disk_failed[at - 1] + FAILED_NS

    def _has_reason(self, request: _Request, stalls: Iterable[tuple[int, int]]) -> bool:
        """Whether the disk was in trouble between sending this and hearing of it, or shortly before."""
        sent_ns, heard_ns = request.sent_ns, request.heard_ns or 0
        at = bisect_right(self._disk_refused, heard_ns)
        if at and self._disk_refused[at - 1] >= sent_ns - REFUSED_NS:
            return True
        return any(from_ns <= heard_ns and sent_ns <= to_ns + STALLED_NS for from_ns, to_ns in stalls)

    def _were_under_way(self, refused: _Request) -> int:
        """At most so many requests may have waited for the disk when this one was refused."""
        return sum(
            request.sent_ns <= (refused.heard_ns or 0)
            and (request.heard_ns >= refused.sent_ns if request.heard_ns else request.sent_ns > refused.since_ns)
            for request in self._sent.values()
        )

    def _may_wait(self, refused: _Request) -> int:
        """At most so many slots of the reserve may have been taken when this was refused, each command having one."""
        end_ns, since_ns = refused.heard_ns or 0, refused.since_ns
        cancels = sum(
            request.answer != "error" and request.sent_ns <= end_ns
            and (request.heard_ns >= refused.sent_ns if request.heard_ns else request.sent_ns > since_ns - NOTICED_NS)
            for op in _GIVE_UP
            for request in self._commands[op]
            if request is not refused
        )  # fmt: skip
        ended = sum(since_ns - NOTICED_NS < lost_ns <= end_ns for lost_ns in self._losses)
        ticks = sum(since_ns - LONGEST_DUE_NS < due_ns <= end_ns for due_ns in self._dues)
        return cancels + ended + ticks + 2 * ((end_ns - since_ns) // CUT_NS + 1)

    def _answered(self, request: _Request, answer: str) -> None:
        if request.answer is not None:
            self.blame("I4", f"{request.client}: {request.message} has two answers: {request.answer} and {answer}")
        request.answer = answer

    def _fact(self, client: SimulatedClient, event: Json) -> None:
        """What a sequence and index say is the same for everybody and for ever, but for whose side is told."""
        if "index" not in event or event.get("event") is None:
            return
        name, side = event["event"], _side(event)
        if name in _MONEY or name == "duplicate" or (name in ("done", "rejected") and not event.get("account")):
            side = client.name
        key = (event["sequence"], event["index"], side)
        known = self._facts.setdefault(key, event)
        if known != event:
            self.blame("I3", f"told differently at {key[:2]}: {known} and then {event}")

    def _own_alone(self, client: SimulatedClient, message: Json) -> None:
        if not client.accounts:
            return  # the operator
        named = {message[name] for name in ("account", "maker_account", "taker_account") if name in message}
        if message.get("type") == "error" or message.get("event") == "rejected":
            return  # says what the request said
        for leg in message.get("legs", ()):
            if leg["from"] not in client.accounts and leg.get("to") not in client.accounts:
                self.blame("I10", f"{client.name} was told a leg of {leg['from']}")
        for name in named:
            if isinstance(name, str) and name not in client.accounts:
                self.blame("I10", f"{client.name} was told of {name}: {message}")
        if (
            "maker_order_id" in message
            and "taker_order_id" in message
            and message["maker_account"] != message["taker_account"]
        ):
            self.blame("I10", f"{client.name} was told both sides of a trade")

    # ------------------------------------------------------------ after a recovery

    def check_journal(self, files: dict[str, bytes]) -> None:
        """The journal as a recovery left it: sound, and each ack ever told has its record."""
        try:
            self.journal = read = read_journal(files)
        except Unsound as error:
            self.blame("I8", f"recovered a journal that is not sound: {error}")
            return
        if read.torn_bytes:
            self.blame("I8", f"{read.torn_bytes} bytes of a torn write were left behind the end")
        records = read.records
        if self.last_told > len(records):
            self.blame("I3", f"sequence {self.last_told} was told; the journal ends with {len(records)}")
        for sequence, chain in self._chains.items():
            if sequence <= len(records) and f"{records[sequence - 1].chain:016x}" != chain:
                self.blame("I3", f"sequence {sequence} was acked with chain {chain}; its record is another")
                break
        for sequence, receipt in self.receipts.items():
            body = records[sequence - 1].body if sequence <= len(records) else b""
            if sha256(body[4:]).hexdigest() != receipt["command_digest"]:
                self.blame("I3", f"a receipt was signed for {sequence}; the journal has no such record")
                break
        times = [record.ts for record in records]
        if any(later < earlier for earlier, later in zip(times, times[1:], strict=False)):
            self.blame("I7", "time goes backwards in the journal")

    # ------------------------------------------------------------ at the end

    def finish(
        self, drop_copy: list[Json], last_asked: int, final_balances: dict[str, Json], open_orders: dict[str, Json]
    ) -> None:
        """`drop_copy`: every private event of all accounts from the first sequence to `last_asked`, in the order told.

        The answers to `balances` and `open_orders` as of `last_asked`, by account.
        """
        commands: dict[int, list[Json]] = {}
        last = (0, -1)
        for event in drop_copy:
            at = (event["sequence"], event["index"])
            if at < last:
                self.blame("I9", f"{at} is told behind {last}")
            last = at
            commands.setdefault(at[0], []).append(event)
        self._compare_facts(drop_copy, last_asked)
        self._check_told(drop_copy)
        ledger = Ledger(self.scales, self.markets)
        phases = self._phases()
        duties = Duties(ledger, self._scopes(), self._is_post_only, self.blame)
        poisons = [request for request in self._commands["poison"] if request.answer != "error"]
        poisoned = {(request.account, request.message["client_id"]) for request in poisons}
        for sequence, events in commands.items():
            self._enter(phases, sequence)
            try:
                duties.obey_before(sequence)
                if events[0]["event"] == "rejected":
                    self._check_reason(events[0], ledger, duties, poisoned)
                duties.take(sequence, events)
                ledger.take(sequence, events)
            except Broken as error:
                self.blame(error.number, str(error))
                return
            except (KeyError, IndexError) as error:
                self.blame("I9", f"sequence {sequence}: an event of what was never told: {error!r}")
                return
        self._enter(phases, last_asked)
        if self.journal is not None and last_asked <= len(self.journal.records):
            duties.end(last_asked, self.journal.records[last_asked - 1].ts)
        self._check_links(ledger, drop_copy)
        self._check_balances(ledger, final_balances)
        self._check_orders(ledger, open_orders)
        self._check_outcomes(drop_copy, ledger)
        self._check_changes(drop_copy)
        self._check_refusals(commands)
        for sequence, request in self._owed.items():
            self.blame("I12", f"{request.client}: {request.message} was acked as {sequence}; no receipt came")

    def _check_reason(self, event: Json, ledger: Ledger, duties: Duties, poisoned: set[tuple[str, str]]) -> None:
        """I4: the core refused what was asked for a reason that the ledger bears out. Who has lost his answer knows not
        what was refused, and who has lost that of a kill or rearm knows not whether it holds."""
        asked = self._acks.get(event["sequence"])
        if asked is None:
            return
        account, request = event.get("account", ""), asked.message
        unanswered = (one for op in ("kill", "rearm") for one in self._commands[op] if one.answer is None)
        is_killed = duties.is_killed(account) or any(one.account == account for one in unanswered)
        is_poisoned = (account, str(request.get("client_id"))) in poisoned
        if not bears_out(ledger, request, event, is_killed=is_killed, is_poisoned=is_poisoned):
            self.blame("I4", f"{asked.client}: {request} is refused, and its ledger gives no reason: {event}")

    def _phases(self) -> list[tuple[int, str, str]]:
        """Where acked commands of the operator took a market to another phase: (sequence, market, phase)."""
        found = []
        for (sequence, _, _), event in self._facts.items():
            if event["event"] == "phase_changed":
                found.append((sequence, event["market"], event["phase"]))
            elif event["event"] == "uncrossed":
                found.append((sequence, event["market"], "continuous"))
        # An answer that was lost is in the journal all the same: from there on the phase is not known.
        told = {sequence for sequence, _, _ in found}.union(self._acks)
        lost = [one for op in ("phase", "uncross") for one in self._commands[op] if one.answer is None]
        unacked = [sequence for sequence in self._journaled(PHASE_KIND, UNCROSS_KIND) if sequence not in told]
        if len(unacked) > len(lost):
            self.blame("I14", f"phases changed at {unacked}; of those asked for {len(lost)} have no answer")
        found += [(sequence, name, "") for sequence in unacked for name in {one.message["market"] for one in lost}]
        return sorted(found)

    def _enter(self, phases: list[tuple[int, str, str]], sequence: int) -> None:
        """Take the markets to the phases that they had in this command."""
        while phases and phases[0][0] <= sequence:
            at, name, phase = phases.pop(0)
            market = self.markets[name]
            if market.phase in ("", "halt"):
                market.left_halt_at = at
            market.phase = phase

    def _journaled(self, *kinds: int) -> list[int]:
        """The sequences of records of these kinds."""
        return [record.sequence for record in self.journal.records if record.kind in kinds] if self.journal else []

    def _scopes(self) -> list[Said]:
        """Kills, re-arms and timers that were acked; and what may be such a one, but for kills: its answer was lost."""
        found = []
        for op, kind in _SCOPES.items():
            requests = [request for request in self._commands[op] if request.answer != "error"]
            acked = {request.sequence for request in requests}
            for request in requests:
                if request.answer == "done" and request.sequence is not None:
                    found.append(Said(request.sequence, request.account, op, request.message.get("at")))
            if op != "kill":
                lost = {request.account for request in requests if request.answer is None}
                unacked = [sequence for sequence in self._journaled(kind) if sequence not in acked]
                found += [Said(sequence, account, op) for sequence in unacked for account in sorted(lost)]
        return sorted(found, key=lambda said: said.sequence)

    def _origin(self, event: Json) -> list[_Request]:
        """What an `accepted` may have come of: the request that it answers, or all whose answer was lost."""
        asked = [one for one in self._asked.get((event["account"], event["client_id"]), ()) if one.answer != "error"]
        acked = [request for request in asked if request.sequence == event["order_id"]]
        return acked or [request for request in asked if request.answer is None]

    def _is_post_only(self, event: Json) -> bool:
        origin = self._origin(event)
        return bool(origin) and all(request.message.get("post_only") for request in origin)

    def _check_links(self, ledger: Ledger, drop_copy: list[Json]) -> None:
        """I14: nobody meets an order that was to end with a link, and it does not stay open, once that is over."""
        acked = sorted((sequence, request.sent_ns) for sequence, request in self._acks.items())
        doomed: dict[int, int] = {}
        at, since_ns = 0, 0
        for event in drop_copy:
            while at < len(acked) and acked[at][0] <= event["sequence"]:
                since_ns, at = max(since_ns, acked[at][1]), at + 1
            if event["event"] == "accepted":
                if lost_ns := self._lost_ns(event):
                    doomed[event["order_id"]] = lost_ns
                continue
            for name in ("order_id", "maker_order_id", "taker_order_id") if event["event"] in _MEETS else ():
                lost_ns = doomed.get(event.get(name, 0), since_ns)
                if lost_ns + PULLED_NS < since_ns:
                    where = f"behind {since_ns / 1e9:.3f} s: {event}"
                    self.blame("I14", f"order {event[name]} had no link from {lost_ns / 1e9:.3f} s on; {where}")
        for order_id, lost_ns in doomed.items():
            if ledger.orders[order_id].is_open and lost_ns + PULLED_NS < since_ns:
                self.blame("I14", f"order {order_id} is open, and has no link from {lost_ns / 1e9:.3f} s on")

    def _lost_ns(self, event: Json) -> int:
        """Since when at the latest the link is over that this order was to end with; 0: it is not, or may not be."""
        origin = self._origin(event)
        lost = [self._lost_links.get(request.link, 0) if request.ends else 0 for request in origin]
        return max(lost) if lost and all(lost) else 0

    def _compare_facts(self, drop_copy: list[Json], last_asked: int) -> None:
        """Everything that anybody was told must be in the history as it is told now."""
        now: dict[tuple[int, int, str], Json] = {}
        for event in drop_copy:
            now[event["sequence"], event["index"], _side(event)] = event
        for (sequence, index, side), event in self._facts.items():
            if (
                sequence > last_asked
                or side not in ("", "maker", "taker")
                or event["event"] in ("phase_changed", "uncrossed", "duplicate", "cut")
            ):
                continue
            if event["event"] in ("done", "rejected") and "account" not in event:
                continue
            found = now.get((sequence, index, side))
            if found is None:
                self.blame("I3", f"{event['event']} at {sequence}.{index} was told, and is in the history no more")
            elif found != event:
                self.blame("I7", f"{sequence}.{index} was told as {event}; replayed it is {found}")

    def _check_told(self, drop_copy: list[Json]) -> None:
        """I9: no link left out anything of its accounts before the last sequence that it told of."""
        sequences = [event["sequence"] for event in drop_copy]
        of_whom = [_accounts(event) for event in drop_copy]
        for told in self._told.values():
            for at in range(bisect_right(sequences, told.after), bisect_right(sequences, told.last - 1)):
                event = drop_copy[at]
                is_told = (event["sequence"], event["index"], _side(event)) in told.events
                if not is_told and not told.accounts.isdisjoint(of_whom[at]):
                    where = f"{told.client} heard of {told.last}, from {told.after} on"
                    self.blame("I9", f"{where}, and not of {event}")
                    break

    def _check_balances(self, ledger: Ledger, told: dict[str, Json]) -> None:
        sums: dict[str, int] = defaultdict(int)
        for account, answer in told.items():
            seen = set()
            for row in answer["balances"]:
                scale = self.scales[row["asset"]]
                now = [units(row["available"], scale), units(row["held"], scale)]
                own = ledger.balances.get((account, row["asset"]), [0, 0])
                seen.add(row["asset"])
                sums[row["asset"]] += sum(now)
                if now != own:
                    self.blame("I1", f"{account} is told {now} of {row['asset']}; its events make {own}")
            for (name, asset), own in ledger.balances.items():
                if name == account and asset not in seen and any(own):
                    self.blame("I1", f"{account} is told nothing of {asset}; its events make {own}")
        for asset, total in sums.items():
            if total:
                self.blame("I1", f"all balances of {asset} sum to {total}")

    def _check_orders(self, ledger: Ledger, told: dict[str, Json]) -> None:
        for account, answer in told.items():
            now = {row["order_id"]: row for row in answer["orders"]}
            own = {
                order.order_id: order for order in ledger.orders.values() if order.is_open and order.account == account
            }
            if set(now) != set(own):
                self.blame("I6", f"{account}: open orders {sorted(now)}; its events make {sorted(own)}")
                continue
            for order_id, row in now.items():
                order = own[order_id]
                if not order.is_budget and ratio(row["leaves"], order.market.lot) != order.leaves:
                    self.blame("I6", f"order {order_id}: leaves {row['leaves']}; its events make {order.leaves}")

    def _check_outcomes(self, drop_copy: list[Json], ledger: Ledger) -> None:
        accepted: dict[tuple[str, str], list[int]] = defaultdict(list)
        rejected: dict[tuple[str, str], list[int]] = defaultdict(list)
        moved: dict[tuple[str, bool], dict[int, Json]] = defaultdict(dict)
        for event in drop_copy:
            name = event["event"]
            if name == "accepted":
                accepted[event["account"], event["client_id"]].append(event["order_id"])
            elif name == "rejected" and event.get("op") == "place":
                rejected[event.get("account"), event.get("client_id")].append(event["sequence"])  # type: ignore[index]
            elif name in _MONEY:
                moved[event["ref"], name in _BEGUN].setdefault(event["sequence"], event)
        for (ref, _), events in moved.items():
            if len(events) > 1:
                self.blame("I5", f"the money of ref {ref} moved at {sorted(events)}")
            for sequence, event in events.items():
                self._check_money(sequence, event)
        for key, orders in accepted.items():
            asked = self._asked.get(key, [])
            if len(orders) > 1:
                self.blame("I5", f"{key} was accepted as orders {orders}")
            if not asked:
                self.blame("I14", f"{key} was accepted as {orders}; nobody who may had sent it")
            for order in orders:
                if asked and not any(request.may_be(order) for request in asked):
                    self.blame("I4", f"{key} was answered otherwise each time, and accepted as {order}")
            poisoned = self._poisons.get(key)
            if poisoned is not None and orders[-1] > poisoned:
                self.blame("I5", f"{key} was poisoned at {poisoned} and accepted at {orders[-1]}")
        for message, account, client_id in self._duplicates:
            if message["order_id"] not in accepted.get((account, client_id), ()) and not self._was_renamed(
                account, client_id
            ):
                self.blame("I4", f"{account} {client_id}: duplicate of order {message['order_id']}, never accepted")
        for message, name in self._resolved:
            self._check_resolved(message, name, accepted, rejected, ledger)

    def _check_money(self, sequence: int, event: Json) -> None:
        name, ref = event["event"], event["ref"]
        requests = self._refs.get(ref, [])
        if event.get("cause") == "expired":
            if not any(request.message.get("expires_at", event["ts"] + 1) <= event["ts"] for request in requests):
                self.blame("I14", f"sequence {sequence}: {name} of ref {ref} as expired, which it is not")
            return
        requests = [request for request in requests if request.message["op"] in _MOVERS[name]]
        if not requests:
            self.blame("I14", f"sequence {sequence}: {name} of ref {ref}, which nobody who may had sent")
        elif not any(request.may_be(sequence) for request in requests):
            self.blame("I4", f"sequence {sequence}: {name} of ref {ref}, which was answered otherwise each time")

    def _check_refusals(self, commands: dict[int, list[Json]]) -> None:
        """I4: each refusal of the core, and each `done`, answers its own request; what was refused changed nothing."""
        refused: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        done: dict[str, list[int]] = defaultdict(list)
        for sequence, events in commands.items():
            first = events[0]
            if first["event"] == "rejected":
                refused[_named(first, first.get("account", ""))].append(sequence)
                if len(events) > 1:
                    self.blame("I4", f"sequence {sequence} was refused ({first}), and brought about {events[1:3]}")
            elif first["event"] == "done" and first["op"] in _ALONE_IN_TELLING:
                done[first["op"]].append(sequence)
        for name, sequences in refused.items():
            self._check_answered(name, sequences, self._named.get(name, []))
        for op, sequences in done.items():
            self._check_answered((op,), sequences, self._commands.get(op, []))
        for request in self._sent.values():
            told = commands.get(request.sequence or 0) if request.answer == "rejected" else None
            if told and told[0]["event"] != "rejected":
                self.blame("I4", f"{request.client}: {request.message} was answered as refused, and did {told[:2]}")

    def _check_answered(self, name: tuple[Any, ...], sequences: list[int], requests: list[_Request]) -> None:
        """What came about at these sequences answers requests one to one, those apart whose answer was lost."""
        unacked = sorted(set(sequences).difference(request.sequence for request in requests))
        unanswered = sum(request.answer is None for request in requests)
        if len(unacked) > unanswered:
            number = "I14" if len(sequences) > len(requests) else "I4"
            sent = f"sent {len(requests)} times, unanswered {unanswered}"
            self.blame(number, f"{name} came about at {sequences}, without an ack at {unacked[:5]}; {sent}")

    def _check_changes(self, drop_copy: list[Json]) -> None:
        """I14: each order that ended or changed did so because somebody who may said so, or by the rule it names."""
        placed: dict[int, Json] = {}
        at_once: dict[tuple[str, str], set[int]] = defaultdict(set)
        for event in drop_copy:
            name = event["event"]
            if name == "accepted":
                placed[event["order_id"]] = event
            elif name == "replaced":
                if why := self._unsaid("replace", event):
                    self.blame(why[0], f"sequence {event['sequence']}: order {event['order_id']} replaced, {why[1]}")
            elif name == "canceled":
                if event["reason"] in _BY_ONE_COMMAND:
                    at_once[_BY_ONE_COMMAND[event["reason"]], event["account"]].add(event["sequence"])
                if event["order_id"] in placed and (why := self._unexplained(event, placed[event["order_id"]])):
                    self.blame(why[0], f"sequence {event['sequence']}: order {event['order_id']} canceled, {why[1]}")
        for (op, account), sequences in at_once.items():
            requests = self._changes[op, account]
            unanswered = sum(request.answer is None for request in requests)
            unacked = sequences - {request.sequence for request in requests}
            if len(unacked) > unanswered:
                said = f"{account} sent {len(requests)} {op}, unanswered {unanswered}"
                number = "I14" if len(sequences) > len(requests) else "I4"
                self.blame(number, f"{said}; it happened at {sorted(sequences)}, without an ack at {sorted(unacked)}")
        for event in self._facts.values():
            if event["event"] not in _PHASES:
                continue
            op = "uncross" if event["event"] == "uncrossed" or event.get("reason") == "uncross" else "phase"
            requests = self._changes[op, event["market"]]
            if not requests:
                self.blame("I14", f"sequence {event['sequence']}: {op} of {event['market']}, which nobody sent")
            elif not any(request.may_be(event["sequence"]) for request in requests):
                self.blame(
                    "I4", f"sequence {event['sequence']}: {op} of {event['market']}, answered otherwise each time"
                )

    def _unsaid(self, op: str, event: Json) -> tuple[str, str] | None:
        """What is wrong if no `op` of those who may, by any name the order has or had, can be what brought it about."""
        names = {event["client_id"]}
        renames = self._changes["replace", event["account"]]
        for request in (*reversed(renames), *renames):  # names of names
            if request.message.get("new_client_id") in names and "client_id" in request.message:
                names.add(request.message["client_id"])
        named = [
            request
            for request in self._changes[op, event["account"]]
            if request.message.get("client_id") in names
            or str(request.message.get("order_id")) == str(event["order_id"])
        ]
        if not named:
            return "I14", f"by a {op} that nobody sent"
        if not any(request.may_be(event["sequence"]) for request in named):
            return "I4", f"by a {op} that was answered otherwise each time"
        return None

    def _unexplained(self, event: Json, placed: Json) -> tuple[str, str] | None:
        """Why the reason that a cancel names cannot be its reason, behind the invariant; None if it can."""
        account, reason = event["account"], event["reason"]
        if reason == "user":
            return self._unsaid("cancel", event)
        if reason == "replaced":
            return self._unsaid("replace", event)
        why = ""
        if reason == "session":
            timers = [request for request in self._changes["cancel_after", account] if request.message["at"]]
            if any(request.answer not in ("error", "rejected") for request in timers):
                return None
            if self._kept.get((account, placed["client_id"])):
                why = "though it was to outlive its connection"
            elif account not in self._cut_off:
                why = "though no session was lost"
        elif reason in ("ioc", "fok") and placed["tif"] != reason:
            why = f"as {reason}, being {placed['tif']}"
        elif reason == "expired" and placed["tif"] != "gtd":
            why = f"as expired, being {placed['tif']}"
        return ("I14", why) if why else None

    def _was_renamed(self, account: str, client_id: str) -> bool:
        return (account, client_id) in self._renamed

    def _check_resolved(
        self, message: Json, name: str, accepted: dict[tuple[str, str], list[int]],
        rejected: dict[tuple[str, str], list[int]], ledger: Ledger,
    ) -> None:  # fmt: skip
        key, as_of = (message["account"], message["client_id"]), message["sequence"]
        if self._was_renamed(*key):
            return
        orders = [order for order in accepted.get(key, ()) if order <= as_of]
        outcome = message["outcome"]
        where = f"{name} at {as_of}: {key} is {outcome}"
        if outcome in ("accepted", "final"):
            if message["order_id"] not in orders:
                self.blame("I4", f"{where} as order {message['order_id']}; accepted were {orders}")
                return
            states = [one for one in ledger.history[message["order_id"]] if one[0] <= as_of]
            _, filled, status = states[-1]
            order = ledger.orders[message["order_id"]]
            told = message["filled"]
            if (units(told, order.market.quote_scale) if order.is_budget else ratio(told, order.market.lot)) != filled:
                self.blame("I4", f"{where}, filled {told}; its events make {filled}")
            if (status == "open") != (outcome == "accepted"):
                self.blame("I4", f"{where}; its events make it {status}")
        elif orders:
            self.blame("I4", f"{where}, and accepted as {orders}")
        elif outcome == "rejected" and message["rejected_sequence"] not in rejected.get(key, ()):
            self.blame("I4", f"{where} at {message['rejected_sequence']}; refused at {rejected.get(key)}")
        elif outcome == "never_received" and any(message["since"] < at <= as_of for at in rejected.get(key, ())):
            self.blame("I4", f"{where} since {message['since']}; refused at {rejected.get(key)}")


def _side(event: Json) -> str:
    """Whose side of a trade it tells."""
    return "maker" if "maker_order_id" in event else "taker" if "taker_order_id" in event else ""


def _accounts(event: Json) -> set[str]:
    """Who is to hear of it."""
    legs = {leg[end] for leg in event.get("legs", ()) for end in ("from", "to")}
    return legs | {event[name] for name in ("account", "maker_account", "taker_account") if event.get(name)}


def _named(message: Json, account: str) -> tuple[Any, ...]:
    """A command as its refusal names it: the operation, the account (a ref has none), and the id or ref that it had."""
    return (message["op"], "" if "ref" in message else account, *(str(message.get(name)) for name in _SUBJECTS))


def _sources(message: Json) -> list[str]:
    """The accounts that a transfer pays from."""
    return [leg["from"] for leg in message.get("legs", ())]


def _short(message: Any) -> str:
    if not isinstance(message, dict):
        return str(message)
    return str(
        {name: value for name, value in message.items() if name not in ("t_in", "t_matched", "t_durable", "t_out")}
    )
