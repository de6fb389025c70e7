"""The public check as a page for people."""

from __future__ import annotations

from html import escape

from platform_api.pages import page
from platform_api.registry.models import CopyrightCheck

__all__ = ["found_page", "unknown_page"]

_ON_CHAIN = "This content is registered."
_UNDER_WAY = "This content was handed in for registration and is not on the chain yet."
_EMBEDDED = "The chain of this exchange is embedded, for trying out, and no network: nobody else keeps it."
_SIGNED = (
    "The author can have a signed certificate of this registration. It is genuine if the file's SHA-256, or the"
    " fingerprint of the certificate that it is signed with, is the one shown here."
)
_OWN_FILE = (
    "Do you have the content? Its SHA-256 digest must be the one above: for a chapter that of its text or file. For a"
    " work it is that of the list, which the author can download; each file and chapter must have the digest there."
)


def found_page(check: CopyrightCheck) -> str:
    rows = [
        ("SHA-256 of the content", check.sha256, True), ("The content", check.covers, False),
        ("Registered at (the chain's clock, UTC)", check.registered_at, False),
        ("Title", check.title, False), ("Author", check.author, False), ("Author's wallet", check.address, True),
        ("Object on the chain", check.object_id, True), ("Transaction", check.digest, True),
        ("Chain", check.chain, False), ("SHA-256 of the certificate (PDF)", check.certificate_sha256, True),
        ("Fingerprint of its signer (SHA-256)", check.signer_sha256, True),
    ]  # fmt: skip
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{f'<code>{escape(text)}</code>' if is_code else escape(text)}</dd>"
        for name, text, is_code in rows
        if text is not None
    )
    notes = [check.proves, _OWN_FILE]
    if check.certificate_sha256 is not None:
        notes.append(_SIGNED)
    if check.embedded:
        notes.append(_EMBEDDED)
    said = _ON_CHAIN if check.status == "registered" else _UNDER_WAY
    body = f"<p>{said}</p><dl>{facts}</dl>" + "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return page("Registration of a work", body)


def unknown_page() -> str:
    return page(
        "No registration",
        "<p>No content with this SHA-256 digest is registered here.</p><p>A digest belongs to one exact content: the"
        " smallest change of a file gives another one.</p>",
    )
