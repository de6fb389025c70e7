"""Routes of registrations, their certificates, the public check, and licences on the chain."""

from __future__ import annotations

import re
from typing import Any

from litestar import Controller, MediaType, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from platform_api.envelope import LIMIT_DEFAULT, Cursor, Envelope, Limit, ok, path_id, unknown
from platform_api.errors import ApiError
from platform_api.idempotency import NeededKey, required_key
from platform_api.openapi import BEARER, also_as
from platform_api.pages import CONTENT_POLICY
from platform_api.registry.check_page import found_page, unknown_page
from platform_api.registry.models import (
    ChainTransaction,
    CopyrightCheck,
    LicenseProof,
    Registration,
    RegistrationRequest,
)
from platform_api.registry.service import RegistryService
from platform_api.routing import CHANGES, READS_ONE, AnyRequest, Who
from platform_api.security import freshly_proved, permitted

__all__ = [
    "CertificateController", "ChainTransactionController", "CopyrightController", "LicenseProofController",
    "WorkRegistrationController",
]  # fmt: skip

Registry = NamedDependency[RegistryService]
_HASH = re.compile(r"[0-9a-f]{64}")
_PAGE_HEADERS = {"vary": "Accept", "content-security-policy": CONTENT_POLICY}


class CopyrightController(Controller):
    path = "/v1/copyrights"
    tags = ("registry",)

    @post("/", security=BEARER, guards=[permitted("create_ip"), freshly_proved], responses=CHANGES)
    async def register(
        self, request: AnyRequest, data: JSONBody[RegistrationRequest], caller: Who, registry: Registry,
        idempotency_key: NeededKey = None,
    ) -> Envelope[Registration]:  # fmt: skip
        """Have a version of one's own work, or of a chapter, registered on the chain. Needs a fresh signature.

        A work is registered whole: the digest is that of its `content` at `GET /v1/works/{work_id}/versions`, which
        names the digest of each file and chapter, drafts too. One without any is refused (409 `nothing_to_register`).

        The chain keeps the content's digest, the address of the wallet that is signed in, and the time, for ever and
        for everybody. Ask `GET /v1/works/{work_id}/registrations` how far it is.
        """
        return ok(request, (await registry.copyrights.register(caller, data, required_key(idempotency_key)))[0])

    @get("/{sha256:str}", operation_class=also_as("text/html"), responses=READS_ONE)
    async def check(
        self, request: AnyRequest, sha256: FromPath[str], registry: Registry
    ) -> Response[Envelope[CopyrightCheck]]:
        """What is registered of a content, by its SHA-256, for everybody. `Accept: text/html`: as a page for people."""
        wants_page = request.accept.best_match(["application/json", "text/html"]) == "text/html"
        try:
            if not _HASH.fullmatch(sha256):
                raise unknown("copyright")
            check = await registry.copyrights.check(bytes.fromhex(sha256))
        except ApiError:
            if not wants_page:
                raise
            return _page(unknown_page(), 404)
        return _page(found_page(check), 200) if wants_page else Response(ok(request, check), headers={"vary": "Accept"})


class WorkRegistrationController(Controller):
    path = "/v1/works/{work_id:str}/registrations"
    tags = ("registry",)

    @get("/", security=BEARER, responses=READS_ONE)
    async def list_registrations(
        self, request: AnyRequest, work_id: FromPath[str], caller: Who, registry: Registry,
        limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None,
    ) -> Envelope[list[Registration]]:  # fmt: skip
        """Registrations of a work's versions and of its chapters', the latest first, for those who see its drafts.

        A `registered` one stands on the chain for ever; of one that `failed`, `reason` says why.
        """
        return ok(request, *await registry.copyrights.of_work(caller, path_id(work_id, "work"), cursor, limit))


class CertificateController(Controller):
    path = "/v1/certificates"
    tags = ("registry",)

    @get("/{registration_id:str}", security=BEARER, media_type="application/pdf", responses=CHANGES)
    async def certificate(
        self, request: AnyRequest, registration_id: FromPath[str], caller: Who, registry: Registry
    ) -> Response[bytes]:
        """The signed certificate of one's own registration as a PDF (PAdES), the same bytes each time.

        409 `not_registered` until it stands on the chain. Its QR code leads to the page where everybody checks the
        content.
        """
        document, sha256 = await registry.certificates.read(caller, path_id(registration_id, "certificate"))
        name = f'attachment; filename="certificate-{sha256[:16]}.pdf"'
        return Response(document, media_type="application/pdf", headers={"content-disposition": name})


class LicenseProofController(Controller):
    path = "/v1"
    tags = ("registry",)

    @get("/licenses/{license_id:str}/chain", security=BEARER, responses=READS_ONE)
    async def of_license(
        self, request: AnyRequest, license_id: FromPath[str], caller: Who, registry: Registry
    ) -> Envelope[LicenseProof]:
        """What stands on the chain for a licence, with the terms behind its digests, for its two parties.

        An object for each paid period: it is `waiting` until the work is registered and the licensee has a Sui wallet.
        What counts is the licence's state here.
        """
        return ok(request, await registry.records.for_parties(caller, path_id(license_id, "license")))

    @get("/authorizations/{code:str}/chain", responses=READS_ONE)
    async def of_code(self, request: AnyRequest, code: FromPath[str], registry: Registry) -> Envelope[LicenseProof]:
        """What stands on the chain for the licence that a verification code stands for, for everybody.

        Of the terms their digest alone.
        """
        return ok(request, await registry.records.for_everybody(code))


class ChainTransactionController(Controller):
    path = "/v1/chain/transactions"
    tags = ("registry",)

    @get("/{digest:str}", responses=READS_ONE)
    async def read(
        self, request: AnyRequest, digest: FromPath[str], registry: Registry
    ) -> Envelope[ChainTransaction]:
        """How far a transaction of the registry is, by its digest, for everybody. 404 for any other transaction."""
        return ok(request, await registry.copyrights.transaction(digest))


def _page(text: str, status: int) -> Response[Any]:
    return Response(text, status_code=status, media_type=MediaType.HTML, headers=_PAGE_HEADERS)
