"""Every refusal of REST is explained, and nothing else: the tables against the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from engine.messages.codes import RejectCode
from platform_api.errors import STATUS
from platform_api.reasons import CODES, REASONS, UNKNOWN

SOURCES = sorted((Path(__file__).parents[3] / "platform_api").rglob("*.py"))
WORD = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
HELPERS = {"unauthorized": "UNAUTHORIZED", "_limited": "RATE_LIMITED", "_wrong": "VALIDATION_ERROR"}
"""Functions that make an ApiError of one code, of a reason among their arguments."""
MADE = re.compile(r"(verification|already|token|not|bad|unknown)_([a-z]+)")
"""Reasons that are made of a beginning and a word, mostly a state of what is asked for."""
TABLE = {(code.value, reason) for code, reasons in REASONS.items() for reason in reasons}
TREES = {path: ast.parse(path.read_text()) for path in SOURCES if path.name != "reasons.py"}
TEXTS = {node.value for tree in TREES.values() for node in ast.walk(tree)
         if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip


def refusals() -> Iterator[tuple[str, str, str]]:
    """Where, code and reason, of all that are written out in the sources."""
    for path, tree in TREES.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = getattr(call.func, "id", "")
            where = f"{path.name}:{call.lineno}"
            words = [part.value if isinstance(part, ast.Constant) else "" for part in call.args]
            if name == "ApiError" and isinstance(call.args[0], ast.Attribute):
                for keyword in call.keywords:
                    if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant):
                        yield where, call.args[0].attr, str(keyword.value.value)
            elif name == "_wrong":
                reason = words[1] if WORD.fullmatch(str(words[1])) else words[2]
                yield where, HELPERS[name], str(reason)
            elif name in HELPERS and name != "_wrong" and words[0]:
                yield where, HELPERS[name], str(words[0])
            elif name == "BadSignature" and len(words) == 2:
                code = {"bad_address": "VALIDATION_ERROR", "scheme_unavailable": "VERIFICATION_FAILED"}
                yield where, code.get(str(words[0]), "UNAUTHORIZED"), str(words[0])


def test_every_refusal_of_the_sources_is_explained() -> None:
    found = list(refusals())
    missing = [(where, code, word) for where, code, word in found if not word.startswith(UNKNOWN) or code != "NOT_FOUND"
               if (code, word) not in TABLE]  # fmt: skip
    assert missing == [] and len(found) > 250


def test_nothing_is_explained_that_is_never_said() -> None:
    said = {(code, word) for _, code, word in refusals()}
    for code, word in sorted(TABLE - said):
        made = MADE.fullmatch(word)
        is_made = made is not None and made[2] in TEXTS
        assert word in TEXTS or is_made or word in {reject.word for reject in RejectCode}, (code, word)


def test_every_code_is_explained_in_a_line() -> None:
    assert list(CODES) == list(REASONS) == list(STATUS)
    for code, text in [*CODES.items(), *((code, text) for words in REASONS.values() for code, text in words.items())]:
        assert text and "\n" not in text and "|" not in text and not text.endswith("."), code
