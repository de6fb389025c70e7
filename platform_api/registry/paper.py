"""The certificate of a registration as a PDF, still unsigned.

Facts are written in letters of any script (`platform_api.faces`), labels in ReportLab's standard fonts; the title
stands in the document's properties as well. The QR code is drawn from Segno's modules. The same bytes for the same
facts, and slow enough to run in a thread.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from xml.sax.saxutils import escape

import segno
from reportlab.graphics.shapes import Drawing, Rect
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from platform_api.faces import SANS, drawing, markup

__all__ = ["certificate_pdf"]

_STYLES = getSampleStyleSheet()
_CODE = ParagraphStyle("Code", fontName="Courier", fontSize=8, leading=10, wordWrap="CJK")  # breaks anywhere
_TEXT = ParagraphStyle("Text", fontName=SANS, fontSize=10, leading=13)
_SMALL = ParagraphStyle("Small", fontName=SANS, fontSize=8, leading=11)
_GRID = TableStyle([
    ("FONT", (0, 0), (0, -1), "Helvetica-Bold", 9), ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ("LINEBELOW", (0, 0), (-1, -1), 0.2, colors.lightgrey),
])  # fmt: skip
_QR_MM, _QUIET = 42, 4


@drawing
def certificate_pdf(
    title: str, facts: Sequence[tuple[str, str]], codes: Sequence[tuple[str, str]], url: str, says: Sequence[str]
) -> bytes:
    """`facts` are words, `codes` hexadecimal and the like; `url` is in the QR code, `says` what all of it means."""
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out, pagesize=A4, title=f"Certificate of registration: {title}", author="Byline", leftMargin=20 * mm,
        rightMargin=20 * mm, topMargin=20 * mm, bottomMargin=18 * mm, invariant=1,
    )  # fmt: skip
    rows = [[name, Paragraph(markup(text), _TEXT)] for name, text in facts]
    rows += [[name, Paragraph(escape(text), _CODE)] for name, text in codes]
    story = [
        Paragraph("Certificate of registration", _STYLES["Title"]), Spacer(1, 4 * mm),
        Table(rows, colWidths=(38 * mm, 132 * mm), style=_GRID, hAlign="LEFT"), Spacer(1, 8 * mm),
        Table(
            [[_qr(url), [Paragraph(markup(text), _SMALL) for text in (f"Check it: {url}", *says)]]],
            colWidths=((_QR_MM + 6) * mm, (164 - _QR_MM) * mm), style=[("VALIGN", (0, 0), (-1, -1), "TOP")],
            hAlign="LEFT",
        ),
    ]  # fmt: skip
    document.build(story)
    return out.getvalue()


def _qr(url: str) -> Drawing:
    """Dark modules as rectangles, a row's neighbours in one, inside the quiet zone that the standard asks for."""
    matrix = segno.make(url, error="m", micro=False).matrix
    size = _QR_MM * mm
    module = size / (len(matrix) + 2 * _QUIET)
    drawing = Drawing(size, size)
    for row, cells in enumerate(matrix):
        bottom = size - (row + 1 + _QUIET) * module
        column = 0
        for is_dark, run in groupby(cells):
            width = len(list(run))
            if is_dark:
                left = (column + _QUIET) * module
                drawing.add(Rect(left, bottom, width * module, module, strokeWidth=0, strokeColor=None))
            column += width
    return drawing
