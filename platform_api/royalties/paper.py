"""Reports and statements as CSV and PDF: the same lines, for a table and for an accountant.

Names and titles are written in letters of any script (`platform_api.faces`); all other texts are ours, in ReportLab's
standard fonts. The same statement always gives the same bytes. Slow enough to run in a thread.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from platform_api.faces import SANS, drawing, markup
from platform_api.royalties.models import Report, ReportLine, StatementDetail, Total

__all__ = ["report_csv", "report_pdf", "statement_csv", "statement_pdf"]

_COLUMNS = (
    "happened_at", "kind", "asset", "amount", "work_id", "revenue_kind", "ref", "sequence", "batch", "digests",
    "work_title", "gross", "platform_fee", "distribution_id", "purchase_id", "license_id", "matures_at",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_HEADINGS = ("Time (UTC)", "What", "Work", "Gross", "Platform fee", "Amount", "Sequence", "Batch")
_WIDTHS = tuple(width * mm for width in (26, 28, 44, 18, 18, 27, 14, 9))
_STYLES = getSampleStyleSheet()
_NAME = ParagraphStyle("Name", fontName=SANS, fontSize=9, leading=11)
_WORK = ParagraphStyle("Work", fontName=SANS, fontSize=6.5, leading=8)
_HEAD = TableStyle([("FONT", (0, 0), (-1, -1), "Helvetica", 9), ("FONT", (0, 0), (0, -1), "Helvetica-Bold", 9)])
_GRID = TableStyle([
    ("FONT", (0, 0), (-1, -1), "Helvetica", 7), ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 6.5),
    ("LEFTPADDING", (0, 0), (-1, -1), 2), ("RIGHTPADDING", (0, 0), (-1, -1), 2),
    ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black), ("LINEBELOW", (0, 1), (-1, -1), 0.2, colors.lightgrey),
    ("ALIGN", (3, 0), (-1, -1), "RIGHT"), ("VALIGN", (0, 0), (-1, -1), "TOP"),
])  # fmt: skip


def report_csv(report: Report) -> bytes:
    return _csv(report.lines)


def statement_csv(detail: StatementDetail) -> bytes:
    return _csv(detail.lines)


def report_pdf(report: Report, holder: str) -> bytes:
    facts = [("Holder", holder), ("From", report.since), ("Before", report.until)]
    facts += [(f"Net in {total.asset}", _total(total)) for total in report.totals]
    if not report.complete:
        facts.append(("Lines", f"the first {len(report.lines)} only: ask for a shorter time"))
    return _pdf("Royalty report", facts, report.lines)


def statement_pdf(detail: StatementDetail, holder: str) -> bytes:
    statement = detail.statement
    facts = [("Holder", holder), ("Month", statement.period), ("Currency", statement.asset)]
    facts += [
        ("Opening balance", statement.opening), ("Earned", statement.earned), ("Reversed", statement.reversed),
        ("Paid out", statement.paid), ("Closing balance", statement.closing), ("Closed at", statement.closed_at),
        ("SHA-256", statement.digest), ("Statement", statement.id),
    ]  # fmt: skip
    return _pdf(f"Royalty statement {statement.period}", facts, detail.lines)


def _total(total: Total) -> str:
    return f"{total.net} (earned {total.earned}, reversed {total.reversed}), paid out {total.paid}"


def _csv(lines: Sequence[ReportLine]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180
    writer.writerow(_COLUMNS)
    for line in lines:
        cells = {name: getattr(line, name) for name in _COLUMNS}
        cells |= {"digests": " ".join(line.digests), "work_title": _inert(line.work_title)}
        writer.writerow(["" if cell is None else cell for cell in cells.values()])
    return out.getvalue().encode()


def _inert(title: str | None) -> str | None:
    """A title is its owner's to choose, and a spreadsheet runs what looks like a formula."""
    return f"'{title}" if title and title.startswith(_FORMULA) else title


@drawing
def _pdf(title: str, facts: Sequence[tuple[str, str]], lines: Sequence[ReportLine]) -> bytes:
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out, pagesize=A4, title=title, author="Byline", leftMargin=13 * mm, rightMargin=13 * mm, topMargin=15 * mm,
        bottomMargin=15 * mm, invariant=1,
    )  # fmt: skip
    cells = [[name, Paragraph(markup(text), _NAME)] for name, text in facts]
    head = Table(cells, colWidths=(40 * mm, 144 * mm), hAlign="LEFT")
    head.setStyle(_HEAD)
    rows = [_HEADINGS, *(_row(line) for line in lines)]
    story = [
        Paragraph(title, _STYLES["Title"]), head, Spacer(1, 6 * mm),
        Table(rows, colWidths=_WIDTHS, repeatRows=1, style=_GRID, hAlign="LEFT"),
        Spacer(1, 6 * mm),
        Paragraph(
            "Every line is a posting of the exchange's ledger. Its batch is settled on the chain and can be verified by"
            " anybody with the public journal. Gross and platform fee are those of the whole sale that a line is a part"
            " of; a work's title is the one it had at the end of the time. Below a work stand its id, and that of the"
            " purchase or of the licence that was paid for.", _STYLES["Normal"],
        ),
    ]  # fmt: skip
    document.build(story, onFirstPage=_number, onLaterPages=_number)
    return out.getvalue()


def _row(line: ReportLine) -> tuple[Any, ...]:
    sign = "" if line.kind == "earned" else "-"
    what = f"{line.kind} {(line.revenue_kind or '').replace('_', ' ')}".strip()
    named = (line.work_title, line.work_id, line.purchase_id or line.license_id)
    work = "<br/>".join(markup(text) for text in named if text)
    return (
        line.happened_at[:19].replace("T", " "), what, Paragraph(work, _WORK), line.gross or "",
        line.platform_fee or "", f"{sign}{line.amount} {line.asset}", str(line.sequence or ""), str(line.batch or ""),
    )  # fmt: skip


def _number(canvas: Canvas, document: SimpleDocTemplate) -> None:
    canvas.setFont("Helvetica", 7)
    canvas.drawRightString(A4[0] - 13 * mm, 9 * mm, f"Byline · page {document.page}")
