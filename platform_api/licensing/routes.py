"""Routes of licence terms, applications and licences."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, IfMatch, Limit, ok, path_id, tagged
from platform_api.idempotency import NeededKey
from platform_api.licensing.models import (
    Application,
    ApplicationDecision,
    ApplicationRequest,
    ApplicationStatus,
    Authorization,
    AuthorizationEvent,
    DerivedWork,
    IssueRequest,
    License,
    LicenseStatus,
    LicenseTerms,
    LicenseVerification,
    Reason,
    Seat,
    SeatRequest,
    TermsPatch,
    TermsRequest,
)
from platform_api.licensing.service import LicensingService
from platform_api.openapi import BEARER, failures
from platform_api.payments.models import Access
from platform_api.routing import CHANGES, READS, READS_ONE, AnyRequest, Visitor, Who
from platform_api.security import SessionGuard, permitted

__all__ = [
    "ApplicationController", "AuthorizationController", "LicenseController", "LicensingStaffController",
    "TermsController", "WorkTermsController",
]  # fmt: skip

Guard = NamedDependency[SessionGuard]
Licensing = NamedDependency[LicensingService]
ApplicationParty = Annotated[Literal["applicant", "licensor"], QueryParameter(name="as")]
LicenseParty = Annotated[Literal["licensee", "licensor"], QueryParameter(name="as")]


class WorkTermsController(Controller):
    path = "/v1/works/{work_id:str}/license-terms"
    tags = ("licensing",)

    @get("/", responses=READS_ONE)
    async def list_terms(
        self, request: AnyRequest, work_id: FromPath[str], visitor: Visitor, licensing: Licensing
    ) -> Envelope[list[LicenseTerms]]:
        """On what terms the work is licensed.

        Those that can be applied for: retired ones are left out. Of a work that is not published, for those who make
        it.
        """
        return ok(request, await licensing.terms.list_of(visitor, path_id(work_id, "work")))

    @post("/", security=BEARER, guards=[permitted("manage_licenses")], responses=CHANGES)
    async def add(
        self, request: AnyRequest, work_id: FromPath[str], data: JSONBody[TermsRequest], caller: Who,
        licensing: Licensing,
    ) -> Response[Envelope[LicenseTerms]]:  # fmt: skip
        """Offer a work's licence on these terms.

        For the work's owner, with `manage_licenses`; at most 100 at a time (409 `too_many_terms`). `seats` are of
        `enterprise` alone (400 `wrong_type`). With `auto_approve` an application is granted without the licensor.
        """
        terms = await licensing.terms.add(caller, path_id(work_id, "work"), data)
        return tagged(ok(request, terms), terms.version)


class TermsController(Controller):
    path = "/v1/license-terms/{terms_id:str}"
    tags = ("licensing",)
    security = BEARER

    @patch("/", guards=[permitted("manage_licenses")], responses=CHANGES)
    async def change(
        self, request: AnyRequest, terms_id: FromPath[str], data: JSONBody[TermsPatch], caller: Who,
        licensing: Licensing, if_match: IfMatch = None,
    ) -> Response[Envelope[LicenseTerms]]:  # fmt: skip
        """Change terms: their next version. Licences that were granted, and applications, keep theirs."""
        terms = await licensing.terms.change(caller, path_id(terms_id, "terms"), data, if_match)
        return tagged(ok(request, terms), terms.version)

    @delete("/", status_code=200, guards=[permitted("manage_licenses")], responses=CHANGES)
    async def retire(
        self, request: AnyRequest, terms_id: FromPath[str], caller: Who, licensing: Licensing
    ) -> Envelope[None]:
        """Retire terms: nobody can apply any more.

        Licences that were granted, and applications that wait, keep them. Again: the same.
        """
        await licensing.terms.retire(caller, path_id(terms_id, "terms"))
        return ok(request, None)


class ApplicationController(Controller):
    path = "/v1/license-applications"
    tags = ("licensing",)
    security = BEARER

    @post("/", guards=[permitted("apply_license")], responses=failures(400, 401, 402, 403, 409, 429, 503))
    async def apply(
        self, request: AnyRequest, data: JSONBody[ApplicationRequest], caller: Who, licensing: Licensing, guard: Guard,
        idempotency_key: NeededKey = None,
    ) -> Response[Envelope[Application]]:  # fmt: skip
        """Apply for a licence; approved at once where its terms say so. The fee of an exclusive one that is approved
        at once is taken with it, or there is none (402, or 403 `step_up_required` as for paying a fee). Needs an
        Idempotency-Key."""
        made = await licensing.applications.apply(caller, data, idempotency_key)
        guard.forget(caller.session_id)
        return tagged(ok(request, made), made.version)

    @get("/", responses=READS)
    async def list_applications(
        self, request: AnyRequest, caller: Who, licensing: Licensing, party: ApplicationParty = "applicant",
        status: FromQuery[ApplicationStatus | None] = None, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Application]]:  # fmt: skip
        """Own applications, or those for own works, the latest first."""
        return ok(request, *await licensing.applications.list_of(caller, party, status, cursor, limit))

    @get("/{application_id:str}", responses=READS_ONE)
    async def read(
        self, request: AnyRequest, application_id: FromPath[str], caller: Who, licensing: Licensing
    ) -> Response[Envelope[Application]]:
        """An application, for its two parties.

        `terms` are those of the day on which it was made, and it is decided under them.
        """
        found = await licensing.applications.read(caller, path_id(application_id, "application"))
        return tagged(ok(request, found), found.version)

    @post(
        "/{application_id:str}/approve", status_code=200, guards=[permitted("manage_licenses")], responses=CHANGES
    )
    async def approve(
        self, request: AnyRequest, application_id: FromPath[str], caller: Who, licensing: Licensing,
        idempotency_key: NeededKey = None,
    ) -> Envelope[Application]:  # fmt: skip
        """Approve: a licence is reserved until its fee is paid.

        Needs an Idempotency-Key. By the licensor alone. The fee is due within seven days; without one the licence is
        active at once. 409 `exclusivity_clash` names what stands in the way, and the application waits on.
        """
        id_ = path_id(application_id, "application")
        return ok(request, await licensing.applications.approve(caller, id_, idempotency_key))

    @post(
        "/{application_id:str}/reject", status_code=200, guards=[permitted("manage_licenses")], responses=CHANGES
    )
    async def reject(
        self, request: AnyRequest, application_id: FromPath[str], data: JSONBody[ApplicationDecision], caller: Who,
        licensing: Licensing,
    ) -> Envelope[Application]:  # fmt: skip
        """Reject an application, with a reason.

        By the licensor, while it is pending (409 `not_pending`); the applicant reads the reason.
        """
        id_ = path_id(application_id, "application")
        return ok(request, await licensing.applications.reject(caller, id_, data.reason))

    @post("/{application_id:str}/withdraw", status_code=200, responses=CHANGES)
    async def withdraw(
        self, request: AnyRequest, application_id: FromPath[str], caller: Who, licensing: Licensing
    ) -> Envelope[Application]:
        """Withdraw an own application that is pending.

        409 `not_pending` once it was decided: a licence that was approved lapses if its fee is not paid.
        """
        return ok(request, await licensing.applications.withdraw(caller, path_id(application_id, "application")))


class LicenseController(Controller):
    path = "/v1/licenses"
    tags = ("licensing",)
    security = BEARER

    @get("/", responses=READS)
    async def list_licenses(
        self, request: AnyRequest, caller: Who, licensing: Licensing, party: LicenseParty = "licensee",
        status: FromQuery[LicenseStatus | None] = None, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[License]]:  # fmt: skip
        """Licences held, or given, the latest first.

        `fee_due` is what its licensee has to pay until `pay_before`; `valid` asks every licence above it, too.
        """
        return ok(request, *await licensing.licenses.list_of(caller, party, status, cursor, limit))

    @post("/", responses=failures(400, 401, 403, 409, 429, 503))
    async def issue(
        self, request: AnyRequest, data: JSONBody[IssueRequest], caller: Who, licensing: Licensing,
        idempotency_key: NeededKey = None,
    ) -> Response[Envelope[License]]:  # fmt: skip
        """Give a licence: of an own work, or below an own licence that permits it. Needs an Idempotency-Key.

        A licence of a work that is not published is a matter between the two parties, also where works are looked at
        before readers get them: seats open the work's published chapters, which nobody looks at first.

        One that permits licences below it, of a work that others are paid for too, is given on only once they have
        agreed (`licence_shares` of the work's royalty rules): until then 409 `sublicensing_not_agreed`.
        """
        made = await licensing.licenses.issue(caller, data, idempotency_key)
        return tagged(ok(request, made), made.version)

    @get("/{license_id:str}", responses=READS_ONE)
    async def read(
        self, request: AnyRequest, license_id: FromPath[str], caller: Who, licensing: Licensing
    ) -> Response[Envelope[License]]:
        """A licence, for its two parties.

        `fee_due` is what its licensee has to pay until `pay_before`. Anybody can check its verification code at `GET
        /v1/authorizations/{code}`.
        """
        found = await licensing.licenses.read(caller, path_id(license_id, "license"))
        return tagged(ok(request, found), found.version)

    @post("/{license_id:str}/pay", status_code=200, responses=failures(400, 401, 402, 403, 404, 409, 429, 503))
    async def pay(
        self, request: AnyRequest, license_id: FromPath[str], caller: Who, licensing: Licensing, guard: Guard,
        idempotency_key: NeededKey = None,
    ) -> Envelope[License]:  # fmt: skip
        """Pay the fee that is due, of the account's money. Needs an Idempotency-Key.

        The licence is active in the answer, or waits for the core and becomes so by itself. What is paid from the
        balance beyond so much of an asset a day (UTC; 50 unless the operator sets another amount), purchases included,
        needs a step-up for itself, after the sign-in: 403 `step_up_required`. The owner gets a letter of it. A fee that
        the core refuses (402, as `insufficient_funds`) gives the step-up back.
        """
        paid = await licensing.fees.pay(caller, path_id(license_id, "license"), idempotency_key)
        guard.forget(caller.session_id)
        return ok(request, paid)

    @post("/{license_id:str}/renew", status_code=200, responses=CHANGES)
    async def renew(
        self, request: AnyRequest, license_id: FromPath[str], caller: Who, licensing: Licensing,
        idempotency_key: NeededKey = None,
    ) -> Envelope[License]:  # fmt: skip
        """Another period, behind the present one, for the licence's own fee.

        Needs an Idempotency-Key. By its licensee while the terms stand as they were (409 `terms_changed`), or by its
        licensor. The fee is due within seven days and before the present period ends: `POST
        /v1/licenses/{license_id}/pay`. Without a fee the next period is the licence's at once.
        """
        return ok(request, await licensing.licenses.renew(caller, path_id(license_id, "license"), idempotency_key))

    @post("/{license_id:str}/revoke", status_code=200, responses=CHANGES)
    async def revoke(
        self, request: AnyRequest, license_id: FromPath[str], data: JSONBody[Reason], caller: Who,
        licensing: Licensing, idempotency_key: NeededKey = None,
    ) -> Envelope[License]:  # fmt: skip
        """Revoke a licence that one gave, and every licence below it. Once a fee was paid for time to come it is given
        back instead (`refund`), or the platform revokes. Needs an Idempotency-Key."""
        id_ = path_id(license_id, "license")
        return ok(request, await licensing.licenses.revoke(caller, id_, data.reason, idempotency_key))

    @post("/{license_id:str}/refund", status_code=200, responses=failures(400, 401, 402, 403, 404, 409, 429, 503))
    async def refund(
        self, request: AnyRequest, license_id: FromPath[str], data: JSONBody[Reason], caller: Who,
        licensing: Licensing, idempotency_key: NeededKey = None,
    ) -> Envelope[License]:  # fmt: skip
        """Give the fees of periods that are not over back, by the licensor or staff. Needs an Idempotency-Key.

        The licence is revoked by it, and every licence below it: in the answer, or once the core has answered.
        """
        id_ = path_id(license_id, "license")
        return ok(request, await licensing.fee_refunds.ask(caller, id_, data.reason, idempotency_key))

    @post("/{license_id:str}/works", status_code=200, guards=[permitted("edit_own")], responses=CHANGES)
    async def declare_work(
        self, request: AnyRequest, license_id: FromPath[str], data: JSONBody[DerivedWork], caller: Who,
        licensing: Licensing,
    ) -> Envelope[License]:  # fmt: skip
        """Name the own work that was made under a licence: its revenue is shared from now on.

        Where others are paid for the work, from their consent on: `licence_shares` of its royalty rules say whose.
        """
        return ok(request, await licensing.derivatives.declare(caller, path_id(license_id, "license"), data.work_id))

    @get("/{license_id:str}/seats", responses=READS_ONE)
    async def seats(
        self, request: AnyRequest, license_id: FromPath[str], caller: Who, licensing: Licensing,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Seat]]:  # fmt: skip
        """Who has a seat of an own enterprise licence. For its licensee alone: its licensor gets 404."""
        return ok(request, *await licensing.seats.list_of(caller, path_id(license_id, "license"), cursor, limit))

    @post("/{license_id:str}/seats", guards=[permitted("manage_seats")], responses=CHANGES)
    async def assign_seat(
        self, request: AnyRequest, license_id: FromPath[str], data: JSONBody[SeatRequest], caller: Who,
        licensing: Licensing,
    ) -> Envelope[Seat]:  # fmt: skip
        """Give an account a seat: it may use the whole work as long as it has the seat and the licence holds.

        By the licensee, with `manage_seats`, also to themselves. 409 `no_seat_left` once all are taken, `no_seats` for
        a licence of another type.
        """
        return ok(request, await licensing.seats.assign(caller, path_id(license_id, "license"), data.account_id))

    @delete("/{license_id:str}/seats/{account_id:str}", status_code=200, guards=[permitted("manage_seats")],
            responses=CHANGES)  # fmt: skip
    async def release_seat(
        self, request: AnyRequest, license_id: FromPath[str], account_id: FromPath[str], caller: Who,
        licensing: Licensing,
    ) -> Envelope[None]:  # fmt: skip
        """Take a seat back.

        The account reads no more from now on; a URL of a file that it has holds five minutes at most.
        """
        ids = path_id(license_id, "license"), path_id(account_id, "seat")
        await licensing.seats.release(caller, *ids)
        return ok(request, None)

    @get("/{license_id:str}/access-token", responses=READS_ONE)
    async def access(
        self, request: AnyRequest, license_id: FromPath[str], caller: Who, licensing: Licensing,
        chapter_id: FromQuery[UUID | None] = None,
    ) -> Envelope[Access]:  # fmt: skip
        """Short-lived URLs of the files of the work, or of one chapter, for who has a seat of an enterprise licence.

        Licences of the other types give rights and open no files here: their licensee gets the work from the licensor,
        or buys it (403 `no_seats`). A licensee who has seats and none themselves gets 403 `no_seat`.
        """
        return ok(request, await licensing.seats.access(caller, path_id(license_id, "license"), chapter_id))


class AuthorizationController(Controller):
    """For everybody."""

    path = "/v1"
    tags = ("licensing",)

    @get("/licenses/{license_id:str}/verify", responses=READS_ONE)
    async def verify(
        self, request: AnyRequest, license_id: FromPath[str], licensing: Licensing
    ) -> Envelope[LicenseVerification]:
        """Whether a licence holds now, for everybody.

        `why_not` says what stands against it: its end, a suspension, or a licence above it that does not hold.
        """
        return ok(request, await licensing.licenses.verify(path_id(license_id, "license")))

    @get("/authorizations/{code:str}", responses=READS_ONE)
    async def read(self, request: AnyRequest, code: FromPath[str], licensing: Licensing) -> Envelope[Authorization]:
        """The lineage and the validity of the licence that a verification code stands for, for everybody.

        `lineage` goes from the work's owner down to this licence, and names no party.
        """
        return ok(request, await licensing.authorizations.read(code))

    @get("/authorizations/{code:str}/history", responses=READS_ONE)
    async def history(
        self, request: AnyRequest, code: FromPath[str], licensing: Licensing, limit: Limit = LIMIT_DEFAULT,
        cursor: Cursor = None,
    ) -> Envelope[list[AuthorizationEvent]]:  # fmt: skip
        """What happened to that licence, the oldest first, for everybody."""
        return ok(request, *await licensing.authorizations.history(code, cursor, limit))


class LicensingStaffController(Controller):
    path = "/v1/admin"
    tags = ("admin",)
    security = BEARER

    @get("/license-applications", guards=[permitted("view_license_details")], responses=READS)
    async def pending(
        self, request: AnyRequest, licensing: Licensing, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
    ) -> Envelope[list[Application]]:
        """Applications that wait for a decision, the oldest first. Needs `view_license_details`."""
        return ok(request, *await licensing.applications.pending(cursor, limit))

    @post("/license-applications/{application_id:str}/approve", status_code=200,
          guards=[permitted("approve_licenses")], responses=CHANGES)  # fmt: skip
    async def approve(
        self, request: AnyRequest, application_id: FromPath[str], caller: Who, licensing: Licensing,
        idempotency_key: NeededKey = None,
    ) -> Envelope[Application]:  # fmt: skip
        """Approve for the licensor. Needs `approve_licenses`, and an Idempotency-Key."""
        id_ = path_id(application_id, "application")
        return ok(request, await licensing.applications.approve(caller, id_, idempotency_key, staff=True))

    @post("/license-applications/{application_id:str}/reject", status_code=200,
          guards=[permitted("approve_licenses")], responses=CHANGES)  # fmt: skip
    async def reject(
        self, request: AnyRequest, application_id: FromPath[str], data: JSONBody[ApplicationDecision], caller: Who,
        licensing: Licensing,
    ) -> Envelope[Application]:  # fmt: skip
        """Reject for the licensor, with a reason. Needs `approve_licenses`."""
        id_ = path_id(application_id, "application")
        return ok(request, await licensing.applications.reject(caller, id_, data.reason, staff=True))

    @post("/licenses/{license_id:str}/revoke", status_code=200, guards=[permitted("revoke_licenses")],
          responses=CHANGES)  # fmt: skip
    async def revoke(
        self, request: AnyRequest, license_id: FromPath[str], data: JSONBody[Reason], caller: Who,
        licensing: Licensing, idempotency_key: NeededKey = None,
    ) -> Envelope[License]:  # fmt: skip
        """Revoke any licence, and every licence below it. Needs `revoke_licenses`, and an Idempotency-Key."""
        id_ = path_id(license_id, "license")
        return ok(request, await licensing.licenses.revoke(caller, id_, data.reason, idempotency_key, staff=True))

    @post("/licenses/{license_id:str}/suspend", status_code=200, guards=[permitted("revoke_licenses")],
          responses=CHANGES)  # fmt: skip
    async def suspend(
        self, request: AnyRequest, license_id: FromPath[str], data: JSONBody[Reason], caller: Who, licensing: Licensing
    ) -> Envelope[License]:
        """Suspend a licence while something is looked into; its time goes on. Needs `revoke_licenses`."""
        return ok(request, await licensing.licenses.suspend(caller, path_id(license_id, "license"), data.reason))

    @post("/licenses/{license_id:str}/resume", status_code=200, guards=[permitted("revoke_licenses")],
          responses=CHANGES)  # fmt: skip
    async def resume(
        self, request: AnyRequest, license_id: FromPath[str], caller: Who, licensing: Licensing
    ) -> Envelope[License]:
        """Let a suspended licence hold again. Needs `revoke_licenses`."""
        return ok(request, await licensing.licenses.resume(caller, path_id(license_id, "license")))
