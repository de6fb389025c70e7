"""Names on paper: read back from the PDF they are the names that were written, whatever their script."""

import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pypdfium2
import pytest

from platform_api.faces import markup
from platform_api.registry.paper import certificate_pdf
from platform_api.royalties.models import Report, ReportLine, Total
from platform_api.royalties.paper import report_csv, report_pdf

NAMES = {
    "Russian": "Фёдор Михайлович Достоевский", "Greek": "Νίκος Καζαντζάκης: ᾠδή", "Polish": "Łucja Żółć-Błędna",
    "Turkish": "Şükrü Ağaoğlu İpekçi", "Vietnamese": "Nguyễn Ngọc Ký", "Chinese": "曹雪芹《红楼梦》 紅樓夢",
    "Japanese": "夏目漱石「こゝろ」", "Korean": "황순원의 소나기", "Arabic": "أحمد شوقي", "Persian": "فروغ فرخزاد",
    "Hebrew": "שלום עליכם", "Hindi": "प्रेमचंद", "Thai": "สุนทรภู่", "Georgian": "შოთა რუსთაველი",
    "Armenian": "Չարենց", "Amharic": "ሀዲስ", "Tamil": "பாரதி", "marks": "Ada & <Ink> “№ 5” ™ €", "sign": "Sun ☀",
}  # fmt: skip
LINE = ReportLine("2026-02-03T04:05:06Z", "earned", "USDC", "8.5", "W-1", "rental", "ref", 7, 3, ["d1", "d2"])


def certificate(title, author):
    facts, codes = [("Title", title), ("Author", author)], [("SHA-256", "ab" * 32)]
    return certificate_pdf(title, facts, codes, "https://x.test/a", [])


def read(document):
    """Its letters without spaces: forms of letters as the letters; a line's end may stand between any two."""
    pages = pypdfium2.PdfDocument(io.BytesIO(document))
    text = "".join(page.get_textpage().get_text_bounded() for page in pages)
    return "".join(unicodedata.normalize("NFKC", text).split())


def words(name):
    """The parts of a name that stand together. A reader of PDFs puts each of several words from right to left in its
    own order among words from left to right, so that those are looked for one by one."""
    text = unicodedata.normalize("NFKC", name)
    to_the_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)
    return text.split() if to_the_left else ["".join(text.split())]


@pytest.mark.parametrize("script", NAMES)
def test_name_stands_on_the_certificate_whatever_its_script(script):
    found = read(certificate(f"Title of {NAMES[script]}", NAMES[script]))
    assert [found.count(word) for word in words(NAMES[script])] == [2] * len(words(NAMES[script])), found
    assert "[U+" not in found


@pytest.mark.parametrize("script", NAMES)
def test_every_letter_is_drawn_by_a_face_that_has_it(script):
    assert "[U+" not in markup(NAMES[script]) and "?" not in markup(NAMES[script])


def test_letter_that_no_face_has_is_named():
    assert markup("a😀\ue000b") == "a[U+1F600][U+E000]b"
    assert markup("𝐀\u200fé\ufe0f") == "Aé", "a form as its letter, marks that are not seen not at all"


def test_arabic_letters_take_the_form_of_their_place_and_run_to_the_left():
    seen = markup("شوقي").removeprefix('<font name="NotoSansArabic">').removesuffix("</font>")
    assert [unicodedata.name(letter).removeprefix("ARABIC LETTER ") for letter in seen] == [
        "YEH FINAL FORM", "QAF INITIAL FORM", "WAW FINAL FORM", "SHEEN INITIAL FORM",
    ]  # fmt: skip


def test_lines_of_a_report_name_works_gross_and_fee():
    titled = [
        ReportLine(*(getattr(LINE, name) for name in LINE.__struct_fields__[:10]), None, title, "12.5", "1.25")
        for title in NAMES.values()
    ]
    report = Report("2026-01-01", "2026-02-01", [Total("USDC", "1", "0", "0", "1")], titled, True)
    found = read(report_pdf(report, "Łucja (id)"))
    assert "Łucja(id)" in found
    for title in NAMES.values():
        assert all(word in found for word in words(title)), title
    assert found.count("W-1") == found.count("12.5") == found.count("8.5USDC") == len(titled)
    assert report_csv(report).decode().splitlines()[1].endswith(
        "d1 d2,Фёдор Михайлович Достоевский,12.5,1.25,,,,"
    )


@pytest.mark.parametrize("title", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_title_is_no_formula_in_a_spreadsheet(title):
    line = ReportLine(*(getattr(LINE, name) for name in LINE.__struct_fields__[:10]), None, title)
    written = report_csv(Report("a", "b", [], [line], True)).decode()
    assert f",'{title}" in written or f",\"'{title}" in written


def test_same_paper_has_the_same_bytes_in_every_process():
    root = Path(__file__).parents[3]
    made = [
        subprocess.run(
            [sys.executable, "-c", "import hashlib, test_faces as t; n = t.NAMES.values(); ' '.join(n);"
             "print(hashlib.sha256(b''.join(t.certificate(x, x) for x in n)).hexdigest())"],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{root}:{Path(__file__).parent}"},
            capture_output=True, text=True, check=True, cwd=root,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert made[0] == made[1] and len(made[0]) == 65
