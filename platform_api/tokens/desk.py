"""Sends the commands of `tokens.command` until the core has answered each, and takes the answers into the documents.

    waiting ──answered──▶ done       its effect on the document in the same transaction
       └────refused─────▶ refused    only after its ref is closed in the core: a late copy can do nothing

A launch is refused whole or not at all: once the supply is minted, a step that the core refuses stays `waiting`, and so
does a command whose ref cannot be closed. Both are errors of the log, and tried again by every `sweep`.

One market's commands go in order, the next after the answer to the one before. Two desks at once, the same command
again after a lost answer, a crash between any two steps: a ref acts at most once, the first answer decides the row, and
whoever comes next goes on from there. While the core is away a job looks again every few seconds; nothing is skipped.

    token   reserved ──sale──▶ minted ──open──▶ listed ⇄ halted ──close──▶ delisted
               └──any step of the launch refused──▶ failed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog

from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from platform_api.exchange.service import ExchangeService
from platform_api.identity.step_up import give_back_step_up
from platform_api.kernel.context import Kernel
from platform_api.ledger.commands import pay_account
from platform_api.money import units_of
from platform_api.ports import NotTaken, submit_taken
from platform_api.royalties.entries import Income
from platform_api.royalties.service import RoyaltyService
from platform_api.royalties.split import largest_remainder
from platform_api.tokens import queries

__all__ = ["DriveMarket", "TokenDesk"]

log = structlog.get_logger(__name__)

QUEUE, KIND = "admin_actions", "drive_tokens"
LAUNCH = ("asset", "account", "payee", "market", "mint", "share", "sale")
AFTER_MINT = ("share", "sale")
LEFT_WAITING = timedelta(minutes=10)
"""Longer than the tries of a job take."""
HARMLESS: Mapping[str, tuple[str, ...]] = {"uncross": ("phase",)}
"""Refusals that say it was done before: a market that is open has nothing to uncross."""
STATUS_AFTER = {"sale": "minted", "open": "listed", "halt": "halted", "resume": "listed", "close": "delisted"}
EVENT_AFTER = {
    "sale": "token.created", "open": "token.listed", "halt": "token.halted", "resume": "token.resumed",
    "close": "token.delisted",
}  # fmt: skip
TIME_OF = {"sale": "minted_at", "open": "listed_at", "close": "delisted_at"}


class DriveMarket(msgspec.Struct, frozen=True):
    market: str


@dataclass(frozen=True, slots=True)
class _Outcome:
    state: str
    reason: str | None
    sequence: int | None


class TokenDesk:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._exchange = kernel.service(ExchangeService)
        self._entries = kernel.service(RoyaltyService).entries
        kernel.service(RoyaltyService).reconciliation.ask_also(queries.refs_to_payees)
        kernel.jobs.handle(QUEUE, KIND, DriveMarket, self._run)

    async def enqueue(self, db: Any, market: str) -> None:
        """Call it in the transaction that writes commands of the market."""
        await self._kernel.jobs.enqueue(db, QUEUE, KIND, DriveMarket(market))

    async def try_drive(self, market: str) -> None:
        """At once, for the answer to a request; what the core does not answer now is the job's."""
        try:
            await self.drive(market)
        except (Unavailable, OutcomeUnknown, Refused) as error:
            log.warning("token_commands_wait", market=market, error=str(error))

    async def drive(self, market: str) -> None:
        """Everything that waits for the market. Raises Unavailable, OutcomeUnknown, Refused: the rest later."""
        while True:
            async with self._kernel.database.connection() as db:
                row = await queries.next_command(db, market)
            if row is None:
                return
            outcome = await self._send(row)
            async with self._kernel.database.transaction() as db:
                if await queries.decide(db, row["id"], outcome.state, outcome.reason, outcome.sequence):
                    await self._take(db, row, outcome)

    async def _run(self, job: DriveMarket) -> None:
        """What a person must look at is the sweep's."""
        try:
            await self.drive(job.market)
        except Refused as error:
            log.error("token_commands_stuck", market=job.market, error=str(error))

    async def sweep(self) -> None:
        """Drive what has waited long: its job was given up, or a person had to look. Without the core: later."""
        async with self._kernel.database.connection() as db:
            markets = await queries.markets_waiting(db, LEFT_WAITING)
        for market in markets:
            try:
                await self.drive(market)
                log.warning("token_commands_swept", market=market)
            except NotTaken as error:
                log.info("token_commands_wait", market=market, error=str(error))
            except (Unavailable, OutcomeUnknown) as error:
                log.info("token_commands_wait", market=market, error=str(error))
                return
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others are sent
                log.error("token_commands_stuck", market=market, error=f"{type(error).__name__}: {error}")

    # The core.

    async def _send(self, row: Any) -> _Outcome:
        """Raises Refused: it stays waiting, and a person must look."""
        body: dict[str, Any] = msgspec.json.decode(row["body"])
        answer = await submit_taken(self._kernel.core, body)
        reason = answer.get("reason")
        if answer.get("event") == "rejected":
            if reason in HARMLESS.get(row["step"], ()):
                return _done(answer)
            if row["step"] in AFTER_MINT or reason == "bad_ref":
                raise Refused(f"{row['ref']} is refused: {reason}")
            closed = await self._close(body)
            return closed or _Outcome("refused", str(reason), None)
        if answer.get("event") == "duplicate" and answer.get("status") == "voided":
            return _Outcome("refused", "closed", None)
        return _done(answer)

    async def _close(self, body: Mapping[str, Any]) -> _Outcome | None:
        """Afterwards no copy of the command can act. Not None: one has acted before it was closed.

        Raises Unavailable, OutcomeUnknown; Refused: it cannot be closed.
        """
        if "ref" in body:
            close = {"op": "void", "ref": body["ref"], "not_after": body["not_after"]}
            answer = await submit_taken(self._kernel.core, close)
            ran = answer.get("event") == "duplicate" and answer.get("status") != "voided"
        elif "client_id" in body:
            close = {"op": "poison", "account": body["account"], "client_id": body["client_id"]}
            answer = await submit_taken(self._kernel.core, close)
            ran = answer.get("event") == "duplicate"
        else:  # an uncross does nothing but in a market that collects
            return None
        if answer.get("event") not in ("voided", "done", "duplicate"):
            raise Refused(f"{body.get('ref', body.get('client_id'))} is not closed: {answer.get('reason')}")
        return _done(answer) if ran else None

    # The documents.

    async def _take(self, db: Any, row: Any, outcome: _Outcome) -> None:
        step = row["step"]
        if outcome.state == "refused":
            log.error("token_command_refused", ref=row["ref"], step=step, reason=outcome.reason)
        if row["token_id"] is None:
            return
        token = await queries.lock_token(db, row["token_id"])
        if outcome.state == "refused":
            if step in LAUNCH:
                await self._fail(db, token, f"{step}: {outcome.reason}")
        elif step in STATUS_AFTER:
            await self._advance(db, token, step, row["actor"])
        elif step == "proceeds":
            leg = msgspec.json.decode(row["body"])["legs"][0]
            await self._credit(db, token, leg, row["ref"], outcome.sequence)
            await self._tell(db, "token.proceeds_paid", token, row["actor"],
                             {"asset": leg["asset"], "amount": leg["amount"]})  # fmt: skip

    async def _credit(self, db: Any, token: Any, leg: Any, ref: str, sequence: int | None) -> None:
        """The creator's part is income like any other: held for its time, stated, paid out."""
        scale = await self._exchange.asset_scale(db, leg["asset"]) or 0
        shares = {share["to"]: share["weight"] for share in leg["shares"]}
        parts = largest_remainder(units_of(leg["amount"], scale, field="amount"), list(shares.values()))
        units = dict(zip(shares, parts, strict=True))[pay_account(token["account_id"])]
        if units:
            income = Income("token_sale", leg["asset"], scale, units, ref, sequence)
            await self._entries.credit(db, [(token["account_id"], income)])

    async def _advance(self, db: Any, token: Any, step: str, actor: Any) -> None:
        changes: dict[str, Any] = {"status": STATUS_AFTER[step]}
        if step in TIME_OF:
            changes[TIME_OF[step]] = datetime.now(UTC)
        changed = await queries.update_token(db, token["id"], changes)
        await self._tell(db, EVENT_AFTER[step], changed, actor, {})
        await self._kernel.audit.record(
            db, EVENT_AFTER[step], ("token", str(token["id"])), actor=actor, old={"status": token["status"]},
            new={"status": changed["status"]},
        )  # fmt: skip

    async def _fail(self, db: Any, token: Any, problem: str) -> None:
        await queries.give_up(db, token["id"])
        changed = await queries.update_token(db, token["id"], {"status": "failed", "problem": problem})
        await queries.set_reservation(db, token["symbol"], "expired")
        await give_back_step_up(db, token["account_id"], token["id"])
        await self._tell(db, "token.failed", changed, None, {"problem": problem})
        await self._kernel.audit.record(
            db, "token.failed", ("token", str(token["id"])), actor=None, old={"status": token["status"]},
            new={"status": "failed", "problem": problem},
        )  # fmt: skip

    async def _tell(self, db: Any, type_: str, token: Any, actor: Any, more: Mapping[str, Any]) -> None:
        payload = {
            "creator_id": str(token["creator_id"]), "symbol": token["symbol"], "market": token["market"],
            "title": token["name"], "for_accounts": [str(token["account_id"])], **more,
        }  # fmt: skip
        await self._kernel.events.publish(
            db, type_, ("token", str(token["id"])), payload, actor=actor, version=token["version"]
        )


def _done(answer: Mapping[str, Any]) -> _Outcome:
    sequence = answer.get("first_sequence") or answer.get("sequence")
    return _Outcome("done", None, int(sequence) if sequence is not None else None)
