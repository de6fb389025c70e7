"""Bodies of the registry's routes. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from platform_api.licensing.models import Code
from platform_api.media.models import Sha256

__all__ = [
    "ChainLicense", "ChainTransaction", "CopyrightCheck", "LicenseProof", "Registration", "RegistrationRequest",
    "RegistrationStatus",
]  # fmt: skip

RegistrationStatus = Literal["pending", "submitted", "registered", "failed"]
Place = Annotated[int, Meta(ge=1, le=1_000_000)]
ObjectId = Annotated[str, Meta(examples=["0x094be7ec6e1ef56fc9fdec4d1c0a54f1e233bb63b13ac2a1e418d127456ce075"])]
Digest = Annotated[str, Meta(examples=["4XgN7JjRJTxqgKwCARz5d5e6oaNmorgceD8vGciFoPSK"])]


class RegistrationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Either a work of one's own, with the digest of each of its files and chapters, or the text or file of one chapter
    alone. `number` is a version of it, the latest if absent; a later change of a chapter is another version.

    The chain shows for ever: the digest, the address of the wallet that is signed in, the time. Nothing else of it.
    """

    work_id: Annotated[UUID | None, Meta(examples=["0197e7a2-5b7c-7c3e-9f0a-3f3c2b1a0d4e"])] = None
    chapter_id: Annotated[UUID | None, Meta(examples=[None])] = None
    number: Annotated[Place | None, Meta(examples=[None])] = None


class Registration(Struct, frozen=True):
    """`registered_at` is the chain's clock. `reason` says why it failed: `registered_elsewhere`, `aborted`.

    `check_url` is for everybody; the certificate is at `/v1/certificates/{id}` once it is registered.
    """

    id: str
    work_id: str
    chapter_id: str | None
    number: int
    sha256: Sha256
    title: str
    author: str
    address: ObjectId
    status: RegistrationStatus
    reason: str
    object_id: ObjectId | None
    digest: Digest | None
    registered_at: str | None
    created_at: str
    check_url: str
    chain: str
    embedded: bool


class CopyrightCheck(Struct, frozen=True):
    """What everybody may know of a registered content. `registered_at` is the chain's clock.

    `title`, `author` and `work_id` only while the work is published; where works are looked at first, a `title` only if
    it is the one that readers know. `certificate_sha256` is the digest of the PDF that was handed out, `signer_sha256`
    that of the certificate (X.509, DER) that it is signed with. `embedded`: the chain is one for trying out, and no
    network. `covers` says what `sha256` is of: a list with the digests of all files and chapters of a work, or the text
    or file of a chapter.
    """

    sha256: Sha256
    status: Literal["pending", "submitted", "registered"]
    registered_at: str | None
    address: ObjectId | None
    object_id: ObjectId | None
    digest: Digest | None
    work_id: str | None
    title: str | None
    author: str | None
    certificate_sha256: Sha256 | None
    signer_sha256: Sha256 | None
    covers: Annotated[str, Meta(examples=["The text, or the file, of one chapter."])]
    proves: str
    chain: str
    embedded: bool


class ChainTransaction(Struct, frozen=True):
    """`signed` and `submitted` are on their way; `aborted` cost gas without an effect; `refused` never ran."""

    digest: Digest
    purpose: Literal["registration", "license", "revocation"]
    status: Literal["signed", "submitted", "executed", "aborted", "refused"]
    checkpoint: int | None
    gas_mist: str | None
    created_at: str
    updated_at: str
    chain: str
    embedded: bool


class ChainLicense(Struct, frozen=True):
    """One period of a licence on the chain. `waiting`: for the work's registration, for a Sui wallet, or for its turn.

    `terms`, what `terms_sha256` is of, are for the two parties; null for everybody else.
    """

    status: Literal["waiting", "submitted", "issued", "revoking", "revoked", "dropped", "failed"]
    terms_sha256: Sha256
    terms: Annotated[str | None, Meta(examples=['{"license_type":"standard","salt":"3f0a91c2"}'])]
    object_id: ObjectId | None
    digest: Digest | None
    issued_at: str | None
    expires_at: str | None
    revoke_digest: Digest | None
    revoked_at: str | None
    not_before: str | None
    """While it waits: two hundred a day of one licensor get to the chain, what is beyond that waits until then."""


class LicenseProof(Struct, frozen=True):
    """The objects that stand on the chain for a licence, the latest period first."""

    verification_code: Code | None
    periods: list[ChainLicense]
    chain: str
    embedded: bool
