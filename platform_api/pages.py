"""Pages for people: plain words, no scripts, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from html import escape

__all__ = ["CONTENT_POLICY", "page"]

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a;"
    "background:#fff}dt{font-weight:600;margin-top:.8rem}dd{margin:0;overflow-wrap:anywhere}"
    "code{font-size:.9em}p.note{border-left:4px solid #888;padding-left:1rem}"
    "details{border-top:1px solid #8884;padding:.4rem 0}summary{cursor:pointer;overflow-wrap:anywhere}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;"
    "overflow-wrap:anywhere}pre{overflow-x:auto;padding:.6rem;background:#8882}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}a{color:#9cf}}"
)
CONTENT_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)
"""For the header of every such page."""


def page(title: str, body: str) -> str:
    """`body` is HTML: whoever makes it has escaped what it shows."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{escape(title)} – Byline</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>\n"
    )
