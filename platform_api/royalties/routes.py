"""Routes of royalties: rules, dry runs, what was earned, statements, payouts."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Controller, Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, ok, path_id
from platform_api.idempotency import NeededKey, required_key
from platform_api.openapi import BEARER, also_as, failures
from platform_api.routing import CHANGES, READS, READS_ONE, AnyRequest, Who
from platform_api.royalties import paper
from platform_api.royalties.models import (
    Balance,
    Calculation,
    CalculationRequest,
    CreatorRoyalties,
    LicenceShare,
    LicenceShareConsent,
    Payout,
    PayoutRequest,
    Report,
    RoyaltyConsent,
    Rule,
    RuleRequest,
    Rules,
    Run,
    RunRequest,
    Statement,
    StatementDetail,
    WorkRoyalties,
)
from platform_api.royalties.service import RoyaltyService
from platform_api.royalties.statements import LINES_MAX, PDF_LINES_MAX
from platform_api.security import permitted

__all__ = ["PayoutController", "RoyaltyController", "RoyaltyRunController", "RuleController"]

Royalties = NamedDependency[RoyaltyService]
Format = Annotated[Literal["json", "csv", "pdf"], QueryParameter()]
FILES = also_as("text/csv", "application/pdf")


class RuleController(Controller):
    path = "/v1/works/{work_id:str}/royalty-rules"
    tags = ("royalties",)
    security = BEARER

    @get("/", responses=READS_ONE)
    async def read(
        self, request: AnyRequest, work_id: FromPath[str], caller: Who, royalties: Royalties
    ) -> Envelope[Rules]:
        """The rules of a work with their dates, for those who make it or are named.

        Without a rule the shares of the work's collaborators count. A `pending` one does not count until those in
        `waits_for` have agreed.
        """
        return ok(request, await royalties.rules.read(caller, path_id(work_id, "work")))

    @put("/", guards=[permitted("edit_own")], responses=CHANGES)
    async def propose(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[RuleRequest], caller: Who,
        royalties: Royalties,
    ) -> Envelope[Rule]:  # fmt: skip
        """A new version from a date.

        It counts when all agreed who are new, or whose share falls. For the work's owner, with `edit_own`; it takes the
        place of one that waits. `lines` sum to 10,000 basis points (400 `not_whole`). No sale is divided anew.
        """
        return ok(request, await royalties.rules.propose(caller, path_id(work_id, "work"), data))

    @post("/consent", status_code=200, responses=CHANGES)
    async def consent(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[RoyaltyConsent], caller: Who,
        royalties: Royalties,
    ) -> Envelope[Rule]:  # fmt: skip
        """Agree to a rule that names the caller, or refuse it.

        One refusal ends it; it counts with the last consent. 404 for who is not asked, 409 `rule_closed` once nothing
        waits.
        """
        return ok(request, await royalties.rules.answer(caller, path_id(work_id, "rule"), data))

    @post("/licence-shares/consent", status_code=200, responses=CHANGES)
    async def consent_to_share(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[LicenceShareConsent], caller: Who,
        royalties: Royalties,
    ) -> Envelope[LicenceShare]:  # fmt: skip
        """Agree that a licence takes its share of what the caller is paid too, or that it is given on, or refuse it.

        One refusal ends it, and everything stays as it was. 404 for who is not asked, 409 `share_closed` once nothing
        waits.
        """
        return ok(request, await royalties.licence_shares.answer(caller, path_id(work_id, "share"), data))


class RoyaltyController(Controller):
    path = "/v1/royalties"
    tags = ("royalties",)
    security = BEARER

    @post("/calculate", status_code=200, responses=CHANGES)
    async def calculate(
        self, request: AnyRequest, data: JSONBody[CalculationRequest], caller: Who, royalties: Royalties
    ) -> Envelope[Calculation]:
        """A dry run: what a sale of one's work would give whom, or what its sales of a month give, each by the rule of
        its time; at most 500 of them. Of the month is what was sold in it, and what has been taken back of that since;
        a statement has what was booked in it, some of it of sales a moment before. Nothing is written."""
        return ok(request, await royalties.calculate(caller, data))

    @get("/works/{work_id:str}", responses=READS_ONE)
    async def of_work(
        self, request: AnyRequest, work_id: FromPath[str], caller: Who, royalties: Royalties,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[WorkRoyalties]:  # fmt: skip
        """What a work has earned, and its sales, the latest first, each line with its batch and digests.

        For its owner, those whom its sales have paid, and staff with `view_transactions`; else 403 `not_paid`, or 404
        for who does not see the work.
        """
        data, pagination = await royalties.of_work(caller, path_id(work_id, "work"), cursor, limit)
        return ok(request, data, pagination)

    @get("/creators/{creator_id:str}", responses=READS_ONE)
    async def of_creator(
        self, request: AnyRequest, creator_id: FromPath[str], caller: Who, royalties: Royalties
    ) -> Envelope[CreatorRoyalties]:
        """What a creator has earned in all: one's own, or for staff.

        By asset, of all works that paid the account. Staff need `view_transactions`; anybody else gets 404.
        """
        return ok(request, await royalties.of_creator(caller, path_id(creator_id, "creator")))

    @get("/report", operation_class=FILES, responses=READS)
    async def report(
        self, request: AnyRequest, caller: Who, royalties: Royalties, since: FromQuery[date | None] = None,
        until: FromQuery[date | None] = None, format: Format = "json",
    ) -> Response[Envelope[Report]]:  # fmt: skip
        """One's own lines between two days of UTC; thirty days unless told. `format` csv and pdf are files. At most
        10,000 lines, the first; a PDF has 1,000. `complete` says whether that is all of them."""
        lines_max = PDF_LINES_MAX if format == "pdf" else LINES_MAX
        report = await royalties.statements.report(UUID(caller.account_id), since, until, lines_max=lines_max)
        if format == "csv":
            return _file(await royalties.drawn(caller, paper.report_csv, report), "text/csv", "royalties.csv")
        if format == "pdf":
            holder = await royalties.holder(caller)
            content = await royalties.drawn(caller, paper.report_pdf, report, holder)
            return _file(content, "application/pdf", "royalties.pdf")
        return Response(ok(request, report))

    @get("/statements", responses=READS)
    async def statements(
        self, request: AnyRequest, caller: Who, royalties: Royalties, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Statement]]:  # fmt: skip
        """One's own statements of closed months, the latest first.

        A month has one once it was closed. `digest` is the SHA-256 of its canonical JSON with all lines, so a copy can
        be checked.
        """
        return ok(request, *await royalties.statements.list_of(caller, cursor, limit))

    @get("/statements/{statement_id:str}", operation_class=FILES, responses=CHANGES)
    async def statement(
        self, request: AnyRequest, statement_id: FromPath[str], caller: Who, royalties: Royalties,
        format: Format = "json", cursor: Cursor = None,
    ) -> Response[Envelope[StatementDetail]]:  # fmt: skip
        """One statement with its lines, 10,000 a page. `format` csv and pdf are files of all lines, the same bytes each
        time; a PDF has at most 1,000 of them."""
        id_ = path_id(statement_id, "statement")
        if format == "json":
            return Response(ok(request, *await royalties.statements.read(caller, id_, cursor)))
        lines_max = PDF_LINES_MAX if format == "pdf" else None
        detail = await royalties.statements.read_whole(caller, id_, lines_max=lines_max)
        name = f"statement-{detail.statement.period}-{detail.statement.asset}"
        if format == "csv":
            return _file(await royalties.drawn(caller, paper.statement_csv, detail), "text/csv", f"{name}.csv")
        holder = await royalties.holder(caller)
        content = await royalties.drawn(caller, paper.statement_pdf, detail, holder)
        return _file(content, "application/pdf", f"{name}.pdf")

    @get("/balance", responses=READS)
    async def balance(self, request: AnyRequest, caller: Who, royalties: Royalties) -> Envelope[list[Balance]]:
        """What is payable, what is held until its hold period is over, and what was paid, by asset. What was earned, by
        sales, licences and tokens, is held for seven days, or what `BYLINE_ROYALTY_HOLD_DAYS` says: so long a sale can
        be given back. `GET /v1/royalties/report` says of each line when it matures."""
        return ok(request, await royalties.statements.balance(caller))


class PayoutController(Controller):
    path = "/v1/payouts"
    tags = ("royalties",)
    security = BEARER

    @post("/", status_code=201, responses=failures(400, 401, 403, 409, 429, 503))
    async def ask(
        self, request: AnyRequest, data: JSONBody[PayoutRequest], caller: Who, royalties: Royalties,
        idempotency_key: NeededKey = None,
    ) -> Envelope[Payout]:  # fmt: skip
        """Pay out what is payable to one's own spending account, from where it can be withdrawn. What is held is not
        payable yet (`GET /v1/royalties/balance`)."""
        return ok(request, await royalties.payouts.ask(caller, data, required_key(idempotency_key)))

    @get("/", responses=READS)
    async def payouts(
        self, request: AnyRequest, caller: Who, royalties: Royalties, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[Payout]]:  # fmt: skip
        """One's own payouts, the latest first."""
        return ok(request, *await royalties.payouts.list_of(caller, cursor, limit))


class RoyaltyRunController(Controller):
    path = "/v1/admin/royalties"
    tags = ("royalties",)
    security = BEARER

    @post("/runs", status_code=202, guards=[permitted("generate_reports")],
          responses=failures(400, 401, 403, 409, 429, 503))  # fmt: skip
    async def close(
        self, request: AnyRequest, data: JSONBody[RunRequest], caller: Who, royalties: Royalties
    ) -> Envelope[Run]:
        """Have a month closed: everybody's statements, written by a job.

        The same month again is the same run; one that was refused, or whose job failed, goes on. A month must be over
        (409 `period_open`), and the months before it closed. Needs `generate_reports`.
        """
        return ok(request, await royalties.closing.ask(caller, data.period))

    @get("/runs/{period:str}", guards=[permitted("generate_reports")], responses=READS_ONE)
    async def run(
        self, request: AnyRequest, period: FromPath[str], caller: Who, royalties: Royalties
    ) -> Envelope[Run]:
        """How far the closing of a month is, and whether it is closed.

        Statements can be read once it is `closed`. One that is `refused` for `books_differ` goes on when it is asked
        for again, once the books agree with the core. Needs `generate_reports`.
        """
        return ok(request, await royalties.closing.read(period))


def _file(content: bytes, media_type: str, name: str) -> Response[Any]:
    return Response(content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})
