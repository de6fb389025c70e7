"""The OpenAPI document as a page for people: the guide, and each route with its parameters, its body and its answers.

It is made of the document alone, so it says nothing that the document does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from platform_api.pages import page

__all__ = ["document_page"]

PATTERN_SHOWN_MAX = 60
"""Longer ones say which characters a text may not have: no reading for people."""
_MARKS = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")
_BOUNDS = (
    ("minLength", "at least {} long"), ("maxLength", "at most {} long"), ("minimum", "at least {}"),
    ("maximum", "at most {}"), ("minItems", "at least {} of them"), ("maxItems", "at most {} of them"),
)  # fmt: skip


def document_page(document: Mapping[str, Any]) -> str:
    """Routes by their tags, in the order of the document."""
    routes = {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    parts = [_prose(document["info"]["description"], routes)]
    parts.append("<p>" + " · ".join(f'<a href="#{tag["name"]}">{tag["name"]}</a>' for tag in document["tags"]) + "</p>")
    for tag in document["tags"]:
        parts.append(f'<h2 id="{tag["name"]}">{tag["name"]}</h2><p>{escape(tag["description"])}</p>')
        parts += [
            _route(name, operation, document, routes)
            for name, operation in routes.items() if tag["name"] in operation["tags"]
        ]  # fmt: skip
    return page("The platform's API", "".join(parts))


def _route(name: str, operation: Mapping[str, Any], document: Mapping[str, Any], routes: Mapping[str, Any]) -> str:
    parts = [f"<summary><code>{escape(name)}</code> {_marked(operation['summary'], routes)}</summary>"]
    parts.append(_prose(operation.get("description", ""), routes))
    if operation.get("security"):
        parts.append("<p>Needs a token.</p>")
    told = [
        (one["name"], one["in"], one.get("required"), one["schema"], one["description"])
        for one in operation.get("parameters", ())
    ]
    for media in operation.get("requestBody", {}).get("content", {}).values():
        body = _resolved(media["schema"], document)
        needed = body.get("required", ())
        told += [
            (field, "body", field in needed, schema, _resolved(schema, document).get("description", ""))
            for field, schema in body.get("properties", {}).items()
        ]
    if told:
        rows = (
            f"<tr><td><code>{escape(field)}</code></td><td>{place}{', needed' if needed else ''}</td>"
            f"<td>{escape(_kind(schema, document))}</td><td>{_marked(words, routes)}</td></tr>"
            for field, place, needed, schema, words in told
        )
        parts.append(f"<table><tr><th>Name</th><th>In</th><th>Is</th><th></th></tr>{''.join(rows)}</table>")
    parts += [_example("Body", media) for media in operation.get("requestBody", {}).get("content", {}).values()]
    refused = []
    for status, answer in operation["responses"].items():
        if int(status) >= 400:
            refused.append(f"{status} {answer['description']}")
            continue
        parts.append(f"<p>{status}: {escape(answer['description'])}</p>")
        parts += [_example("", media) for media in answer.get("content", {}).values()]
    if refused:
        parts.append(f"<p>Refused: {escape('; '.join(refused))}.</p>")
    return f'<details id="{_anchor(name)}">{"".join(parts)}</details>'


def _example(title: str, media: Mapping[str, Any]) -> str:
    if "example" not in media:
        return ""
    text = json.dumps(media["example"], indent=2, ensure_ascii=False)
    return (f"<p>{title}:</p>" if title else "") + f"<pre>{escape(text)}</pre>"


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference names; of a value that may be null besides, what it else is."""
    while True:
        parts = [part for word in ("oneOf", "allOf") for part in schema.get(word, ()) if part.get("type") != "null"]
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        elif len(parts) == 1:
            schema = parts[0]
        else:
            return schema


def _kind(schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """A type with its rules, in words."""
    found = _resolved(schema, document)
    if "enum" in found or "const" in found:
        return " | ".join(str(choice) for choice in found.get("enum", [found.get("const")]) if choice is not None)
    if found.get("oneOf"):
        return " or ".join(_kind(part, document) for part in found["oneOf"])
    words = [str(found.get("format") or found.get("type", "any"))]
    if found.get("type") == "array" and found.get("items"):
        words = [f"array of {_kind(found['items'], document)}"]
    words += [text.format(found[word]) for word, text in _BOUNDS if found.get(word)]
    if 0 < len(found.get("pattern", "")) <= PATTERN_SHOWN_MAX:
        words.append(f"as {found['pattern']}")
    return ", ".join(words)


def _prose(text: str, routes: Iterable[str]) -> str:
    return "".join(f"<p>{_marked(part, routes)}</p>" for part in text.split("\n\n") if part.strip())


def _marked(text: str, routes: Iterable[str]) -> str:
    """Words with the two marks that the document has; a route that is named leads there."""
    parts, end = [], 0
    for mark in _MARKS.finditer(text):
        parts.append(escape(text[end : mark.start()]))
        code, strong = mark.groups()
        if strong is not None:
            parts.append(f"<strong>{escape(strong)}</strong>")
        elif code in routes:
            parts.append(f'<a href="#{_anchor(code)}"><code>{escape(code)}</code></a>')
        else:
            parts.append(f"<code>{escape(code)}</code>")
        end = mark.end()
    return "".join(parts) + escape(text[end:])


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()
