"""Money commands: written with their document, sent until the core has answered, noted with what the answer changes.

    ordered ──▶ posted                              the transfer or deposit ran
       │  └───▶ pending ──▶ posting ──▶ posted      held; then what was held is given to its receivers …
       │            └─────▶ voiding ──▶ voided      … or back
       ├──────▶ closing ──▶ refused                 the core refused it, and its ref is closed: it never runs
       │           └──────▶ posted                  … but another sender's copy had run before
       └──────▶ stuck ──▶ posted | refused          another command owns the ref: a person decides (`resolve`)

`order` writes the finished command in the transaction of the document that wants it; nothing is read again later. The
same bytes are sent until there is an answer, by a job and by whoever calls `drive`; two senders do no harm, for a ref
runs once. Where a request sends the command itself the job waits a moment, and is gone with the answer. What stays open
although (a job is given up after its tries) is found by `sweep`. A refusal is final only after the ref is closed in the
core, since a late copy could still run; and the command is `closing` before that, since another sender's copy may be
held meanwhile: either that is noted first, or nobody notes it and all drivers give it back. What the document does with
the answer runs in the transaction that notes it, once; of a stuck command it hears nothing, and waits, until a person
has decided by what the core shows under the ref (`byline money`, docs/decisions/0080). So a crash anywhere leaves the
money in one named account, and the next sending goes on (the flows are in docs/decisions/0033).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
import structlog

from engine.messages.errors import OutcomeUnknown, Unavailable
from platform_api.database import Deadlock
from platform_api.errors import ApiError, ErrorCode
from platform_api.kernel.context import Kernel
from platform_api.ledger import queries
from platform_api.ports import NotTaken, submit_taken

__all__ = [
    "FORCED", "KEPT", "KEPT_OUTSIDE", "NEVER", "OPEN", "MoneyAnswer", "MoneyCommands", "Ordered", "ResolveMoney",
    "pay_account", "touched", "work_account",
]  # fmt: skip

log = structlog.get_logger(__name__)

NEVER, FORCED, OPEN = "never", "forced", "open"
KEPT = timedelta(days=7)
"""How long the core remembers the ref of a command of our own."""
KEPT_OUTSIDE = timedelta(days=90)
"""The same for a fact of a payment provider."""
_MINE_FIRST = timedelta(seconds=2)
"""What a request has to send its command itself, before the job does."""
_LEFT_OPEN = timedelta(minutes=10)
"""Longer than the tries of a job take."""
_SWEPT_MAX = 1_000
_NOTED_MOST = 5


def pay_account(account_id: UUID) -> str:
    """What we owe a payee, or the payee us."""
    return f"pay:{account_id}"


def work_account(work_id: UUID) -> str:
    """Money of a work on its way to several receivers."""
    return f"work:{work_id}"


def touched(body: str) -> set[tuple[str, str]]:
    """The accounts of the core that a command names, each with the asset; of a deposit without the place outside."""
    command = msgspec.json.decode(body)
    if command["op"] == "deposit":
        return {(command["account"], command["asset"])}
    return {
        (account, leg["asset"])
        for leg in command["legs"]
        for account in (leg["from"], *([leg["to"]] if "to" in leg else [share["to"] for share in leg["shares"]]))
    }


@dataclass(frozen=True, slots=True)
class MoneyAnswer:
    """`state` is posted, pending, voided or refused; `sequence` the core's, where its answer told it."""

    ref: str
    document_id: UUID
    state: str
    reason: str | None
    sequence: int | None


Ordered = Mapping[str, Any]
"""A command as `order` wrote it."""
OnAnswer = Callable[[Any, MoneyAnswer], Awaitable[None]]
"""Gets the connection of the transaction that notes the answer."""


class SendMoney(msgspec.Struct, frozen=True):
    ref: str


class ResolveMoney(msgspec.Struct, frozen=True):
    """A job: what a person has decided of a stuck command. `sequence`: where the core did what the command wanted."""

    ref: str
    state: Literal["posted", "refused"]
    sequence: int | None


class MoneyCommands:
    """One for each application."""

    def __init__(self, kernel: Kernel) -> None:
        self._database, self._core, self._jobs = kernel.database, kernel.core, kernel.jobs
        self._handlers: dict[str, OnAnswer] = {}
        self._opened: set[str] = set()
        self._jobs.handle("payments", "send_money", SendMoney, self._send_later)
        self._jobs.handle("payments", "resolve_money", ResolveMoney, self._resolve)

    def handle(self, kind: str, on_answer: OnAnswer) -> None:
        """What the document of commands of this kind does with answers. It may `order` further ones."""
        assert kind not in self._handlers, f"commands of kind {kind} have a handler"
        self._handlers[kind] = on_answer

    async def pass_on(self, db: Any, kind: str, answer: MoneyAnswer) -> None:
        """To the handler of this kind, what a command that stands for one of its own was answered."""
        await self._handlers[kind](db, answer)

    async def order(
        self,
        db: Any,
        ref: str,
        kind: str,
        document_id: UUID,
        command: Mapping[str, Any],
        *,
        accounts: Mapping[str, str],
        kept: timedelta = KEPT,
        mine: bool = False,
    ) -> Ordered:
        """Write a command of the rulebook (without ref and not_after) in the transaction of its document.

        `accounts` are those that must be open first, each with its overdraft. The same ref again is an error of ours.
        `mine`: the caller calls `settle` as soon as its transaction stands; a job sends it if that fails.
        """
        assert kind in self._handlers, f"nobody takes answers of kind {kind}"
        not_after = int((datetime.now(UTC) + kept).timestamp()) * 10**9
        body = msgspec.json.encode(dict(command) | {"ref": ref, "not_after": not_after}).decode()
        texts = {"body": body, "accounts": msgspec.json.encode(accounts).decode()}
        await queries.insert(db, ref, kind, document_id, **texts)
        await self._jobs.enqueue(
            db, "payments", "send_money", SendMoney(ref), run_after=_MINE_FIRST if mine else None,
            dedupe_key=ref if mine else None,
        )  # fmt: skip
        return {"ref": ref, "kind": kind, "document_id": document_id, "state": "ordered", "reason": None, **texts}

    async def order_post(self, db: Any, ref: str) -> None:
        """What is pending goes to its receivers."""
        await self._turn(db, ref, "posting")

    async def order_void(self, db: Any, ref: str) -> None:
        """What is pending goes back."""
        await self._turn(db, ref, "voiding")

    async def state(self, db: Any, ref: str) -> str:
        """How the command stands, in the caller's transaction, which keeps it so."""
        return await queries.lock_state(db, ref)

    async def on_the_way(self, db: Any, reached: int, limit: int) -> list[Any]:
        """What lies between the core up to the sequence `reached` and the documents: ref, document_id, body."""
        return await queries.on_the_way(db, reached, limit)

    async def drive(self, ref: str, ordered: Ordered | None = None) -> str:
        """Send what is open of this command, once, and note the answer; its state afterwards.

        `ordered`: as it is in the database now, by the caller's own transaction; else it is read.

        Raises:
            Unavailable, OutcomeUnknown: no answer; the job sends it again.
        """
        while True:
            row, ordered = ordered or await self._row(ref), None
            if row["state"] not in ("ordered", "closing", "posting", "voiding"):
                return str(row["state"])
            answer = await self._sent(row)
            if await self._note(row, answer) and answer.state not in ("closing", "pending"):
                return answer.state

    async def _note(self, row: Any, answer: MoneyAnswer) -> bool:
        """Whether it was new. Two answers about the same accounts may wait for each other: PostgreSQL ends one, which
        is noted anew."""
        for _ in range(_NOTED_MOST - 1):
            with suppress(Deadlock):  # nothing of it was noted
                return await self._note_once(row, answer)
        return await self._note_once(row, answer)

    async def _note_once(self, row: Any, answer: MoneyAnswer) -> bool:
        opened = msgspec.json.decode(row["accounts"], type=dict[str, str])
        # What opens the same accounts is about the same rows, as purchases of one work.
        turn = self._database.turn(row["kind"], *(sorted(opened) or [row["ref"]]))
        async with turn, self._database.transaction() as db:
            if not await queries.turn(db, row["ref"], row["state"], answer.state, answer.reason, answer.sequence):
                return False
            if answer.state == "closing":  # nothing that its document must know is decided
                return True
            if row["state"] in ("ordered", "closing"):
                await self._jobs.withdraw(db, "payments", "send_money", row["ref"])
            if answer.state != "stuck":  # nobody knows what it took
                await self._handlers[row["kind"]](db, answer)
            return True

    async def settle(self, ref: str, ordered: Ordered | None = None) -> str:
        """As `drive`, for a request that shall tell what it can: without an answer, the state as it was."""
        try:
            return await self.drive(ref, ordered)
        except (Unavailable, OutcomeUnknown) as error:
            log.info("money_waits", ref=ref, error=str(error))
            return str((await self._row(ref))["state"])

    async def payment_failed(self, ref: str, message: str, details: Mapping[str, str]) -> ApiError:
        """What whoever pays from a balance is told when the core refused: its reason, as `insufficient_funds`."""
        reason = (await self._row(ref))["reason"]
        return ApiError(ErrorCode.PAYMENT_FAILED, message, reason=reason or "refused", details=details)

    async def sweep(self) -> None:
        """Send what has stayed open: its job was given up, as after an answer that could not be noted five times.

        One that fails again is told of in the log, and holds up no other, nor does one that the core does not take.
        Without the core: later.
        """
        async with self._database.connection() as db:
            refs = await queries.left_open(db, _LEFT_OPEN, _SWEPT_MAX)
        for ref in refs:
            try:
                log.warning("money_swept", ref=ref, state=await self.drive(ref))
            except NotTaken as error:
                log.info("money_waits", ref=ref, error=str(error))
            except (Unavailable, OutcomeUnknown) as error:
                log.info("money_waits", ref=ref, error=str(error))
                return
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others are sent
                log.error("money_not_noted", ref=ref, error=f"{type(error).__name__}: {error}")

    async def _row(self, ref: str) -> Any:
        async with self._database.connection() as db:
            row = await queries.one(db, ref)
        assert row is not None, ref
        return row

    async def _turn(self, db: Any, ref: str, state: str) -> None:
        turned = await queries.turn(db, ref, "pending", state, None, None)
        assert turned, f"{ref} is not pending"
        await self._jobs.enqueue(db, "payments", "send_money", SendMoney(ref))

    async def _send_later(self, job: SendMoney) -> None:
        await self.drive(job.ref)

    async def _resolve(self, job: ResolveMoney) -> None:
        """As an answer of the core is noted; once, also of two decisions."""
        row = await self._row(job.ref)
        if row["state"] == "stuck":
            reason = row["reason"] if job.state == "refused" else None
            await self._note(row, MoneyAnswer(job.ref, row["document_id"], job.state, reason, job.sequence))

    async def _sent(self, row: Any) -> MoneyAnswer:
        if row["state"] == "posting":
            answer = await self._submit(row, {"op": "post", "ref": row["ref"]})
            if answer.state != "rejected":
                return answer
            given_back = await self._void(row)  # it expired meanwhile
            return replace(given_back, reason=answer.reason)
        if row["state"] == "voiding":
            return await self._void(row)
        if row["state"] == "closing":
            return await self._closed(row)
        await self._open(msgspec.json.decode(row["accounts"], type=dict[str, str]))
        answer = await self._submit(row, msgspec.json.decode(row["body"]))
        if answer.state == "rejected":
            if answer.reason == "bad_ref":  # what it holds is another's
                return self._stuck(answer)
            return replace(answer, state="closing", sequence=None)
        if answer.state == "voided":  # closed before this copy came
            return MoneyAnswer(answer.ref, answer.document_id, "refused", "closed", None)
        return answer

    async def _closed(self, row: Any) -> MoneyAnswer:
        """Never the command again, unless it ran: that tells its sequence."""
        closed = await self._void(row)
        if closed.state == "posted":
            return await self._submit(row, msgspec.json.decode(row["body"]))
        if closed.state != "voided":
            return self._stuck(closed)
        return replace(closed, state="refused", reason=row["reason"], sequence=None)

    def _stuck(self, answer: MoneyAnswer) -> MoneyAnswer:
        log.error("money_stuck", ref=answer.ref, reason=answer.reason)
        return replace(answer, state="stuck", sequence=None)

    async def _void(self, row: Any) -> MoneyAnswer:
        """What the ref holds goes back; one that the core does not know is closed until the command's own `not_after`,
        and then forgotten: its table of refs is as large as it is. After that the core refuses the void as it would any
        copy of the command, and that too is closed."""
        not_after = msgspec.json.decode(row["body"])["not_after"]
        answer = await self._submit(row, {"op": "void", "ref": row["ref"], "not_after": not_after})
        if (answer.state, answer.reason) == ("rejected", "expired"):
            return replace(answer, state="voided", reason=None, sequence=None)
        return answer

    async def _submit(self, row: Any, command: Mapping[str, Any]) -> MoneyAnswer:
        answer = await submit_taken(self._core, command)
        event, sequence, reason = answer.get("event"), answer.get("sequence"), None
        match event:
            case "transferred" | "posted":
                state = "posted"
            case "pended":
                state = "pending"
            case "voided":
                state = "voided"
            case "duplicate":
                state, sequence = str(answer["status"]), answer.get("first_sequence")
                if command["op"] in ("post", "void"):
                    sequence = None  # that of the hold; the one of the decision is not told again
            case _:
                state, reason = "rejected", str(answer.get("reason") or event)
        return MoneyAnswer(row["ref"], row["document_id"], state, reason, None if sequence is None else int(sequence))

    async def _open(self, accounts: Mapping[str, str]) -> None:
        """Opening again changes nothing, so what this process has opened is only remembered."""
        for account, overdraft in accounts.items():
            if account in self._opened:
                continue
            answer = await self._core.submit({"op": "account", "account": account, "overdraft": overdraft})
            if answer.get("event") == "rejected":
                raise NotTaken(f"the core does not open {account}: {answer.get('reason')}")
            self._opened.add(account)
