"""Letters of any script on paper: which embedded face draws which letter.

A paragraph of a paper is in `SANS`; what that lacks is drawn by the first of the other faces that has it, a run of
letters each. Faces come from two packages of fonts (docs/decisions/0059), are read when first needed, and only the
letters used are put into a document. Texts from right to left are laid in the order in which they are seen, Arabic
letters in the forms of their place in a word. A letter that no face has is named: `[U+1FAE8]`, never another one.
Not thread-safe, as ReportLab's faces are not: whatever draws is a `drawing`.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, wraps
from importlib.resources import files
from itertools import groupby
from typing import ParamSpec
from xml.sax.saxutils import escape

from arabic_reshaper import ArabicReshaper
from bidi import get_display
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

__all__ = ["SANS", "drawing", "markup"]

_Arguments = ParamSpec("_Arguments")
_DRAWING = threading.Lock()
SANS = "NotoSans"
# After it, in the order in which they are asked. The face of Chinese, Japanese and Korean is the largest by far.
_SCRIPTS = (
    "Arabic", "Armenian", "Bengali", "Devanagari", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Hebrew", "Kannada",
    "Khmer", "Lao", "Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thai", "Symbols",
)  # fmt: skip
_FACES = (SANS, *(f"NotoSans{script}" for script in _SCRIPTS), "MicroHei", "NotoEmoji")
_FILES = {"MicroHei": ("paperang_p2_fonts_cjk", "fonts/wqy-microhei.ttc")}
_RIGHT_TO_LEFT = {"R", "AL"}
_FORMS = ArabicReshaper({"delete_harakat": False})


def drawing(draw: Callable[_Arguments, bytes]) -> Callable[_Arguments, bytes]:
    """Decorates what draws a paper: one at a time, of all threads."""

    @wraps(draw)
    def alone(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> bytes:
        with _DRAWING:
            return draw(*args, **kwargs)

    return alone


def markup(text: str) -> str:
    """The markup of a ReportLab paragraph whose face is `SANS`, with other faces where it lacks a letter."""
    runs = groupby(_letters(_as_seen(unicodedata.normalize("NFC", text))), key=lambda letter: letter[1])
    parts = ((face, escape("".join(letter for letter, _ in run))) for face, run in runs)
    return "".join(part if face == SANS else f'<font name="{face}">{part}</font>' for face, part in parts)


def _as_seen(text: str) -> str:
    if _RIGHT_TO_LEFT.isdisjoint(map(unicodedata.bidirectional, text)):
        return text
    return str(get_display(_FORMS.reshape(text), base_dir="L"))


def _letters(text: str) -> Iterator[tuple[str, str]]:
    """Each letter with its face; marks of direction, of joining and of variants are not drawn."""
    for letter in text:
        if unicodedata.category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f":
            continue
        alike = unicodedata.normalize("NFKC", letter)  # of a form that no face has: 𝐀 is drawn as A
        for candidate in (letter, alike):
            faces = [_face_of(part) for part in candidate]
            if None not in faces:
                yield from ((part, face) for part, face in zip(candidate, faces, strict=True) if face is not None)
                break
        else:
            yield f"[U+{ord(letter):04X}]", SANS


def _face_of(letter: str) -> str | None:
    """ReportLab tells readers of the document a wrong letter for one beyond U+FFFF, such as most emoji: it has none."""
    if ord(letter) > 0xFFFF:
        return None
    return next((name for name in _FACES if ord(letter) in _glyphs(name)), None)


@cache
def _glyphs(name: str) -> frozenset[int]:
    """The code points a face draws; it is known to ReportLab from then on."""
    package, path = _FILES.get(name, ("manimgx_fonts", f"{name}[wght].ttf"))
    font = TTFont(name, str(files(package) / path), shapable=False)  # shaped text could not be read back from a PDF
    pdfmetrics.registerFont(font)
    return frozenset(font.face.charToGlyph)


_glyphs(SANS)
