"""docs/operations.md has a line for every message that an operator can meet: each log of WARNING and worse, each error
that stops a process, and each refusal of a command that does not say itself what to do, as the sources have them."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from byline.processes.entry import stopped
from engine.messages.errors import JournalCorrupt, JournalFailed, LocalFault, Unavailable

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine", "files", "gateway", "persistence", "marketdata", "settlement", "platform_api", "byline")
LOG = re.compile(r"""\b_?log(?:ger)?\.(?:warning|error|critical|exception)\(\s*f?"((?:[^"\\]|\\.)*)\"""")
STOPS = {
    "JournalCorrupt", "JournalFailed", "KeyRegistryCorrupt", "MigrationChanged", "PostgresFailed", "DataDirectoryBusy",
    "ChildFailed", "NotQuiet", "PortTaken",
}  # fmt: skip
"""Errors that end a process or the whole exchange. Halts of settlement have their own runbook."""

REFUSED = {
    "ExchangeError", "LocalFault", "OutcomeUnknown", "PartMissing", "Refused", "RemoteFault", "SettingsInvalid",
    "Unavailable",
}  # fmt: skip
"""What an operator reads of a command, or as the reason in a line; what callers of REST read has a list of its own."""


def normal(text: str) -> str:
    """Without what differs, and without what follows a line end."""
    return re.sub(r"%(\.\d+)?[a-z]|\{[^}]*\}", "…", text.partition("\\n")[0].partition("\n")[0])


def logged(source: str) -> list[str]:
    return [normal(match[1]) for match in LOG.finditer(source)]


def raised(source: str, names: Collection[str] = STOPS) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            name, text = getattr(node.exc.func, "id", ""), node.exc.args[0]
            if name in names and isinstance(text, (ast.Constant, ast.JoinedStr)):
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                yield normal("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts))


def is_bare(text: str) -> bool:
    """Whether a refusal is one clause, of what is named before it, and at most a reason behind it: then it cannot say
    what to do about it."""
    clause = re.sub(r"^(?:[\w.]+ ){0,2}…: |(: …)+$", "", text)
    return re.search(r"[:;,(`]", clause) is None and re.search(r"\w", text) is not None


def refusals() -> dict[str, str]:
    """Those that are bare, and where they are."""
    return {
        text: str(path.relative_to(ROOT))
        for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
        for text in raised(path.read_text(), REFUSED) if is_bare(text)
    }  # fmt: skip


RAISED = re.compile(rf"""\braise ({"|".join(sorted(STOPS))})\(\s*((?:f?"(?:[^"\\]|\\.)*"\s*)+)""")


def raised_in_cython(source: str) -> list[str]:
    return [normal("".join(re.findall(r'"((?:[^"\\]|\\.)*)"', match[2]))) for match in RAISED.finditer(source)]


def messages() -> dict[str, str]:
    """Every message, and where it is."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py*")):
            if path.suffix in (".py", ".pyx"):
                source = path.read_text()
                texts = [*logged(source), *(raised if path.suffix == ".py" else raised_in_cython)(source)]
                found |= {text: str(path.relative_to(ROOT)) for text in texts if re.search(r"\w", text)}
    return found


def missing(found: dict[str, str], page: str) -> list[str]:
    """Those that begin with no `code` of the page."""
    known = [code for code in re.findall(r"`([^`]+)`", page) if len(re.findall(r"\w", code)) >= 5]
    return [f"{where}: {text}" for text, where in found.items() if not any(text.startswith(code) for code in known)]


def test_every_message_has_its_line_in_the_runbook() -> None:
    found = messages()
    assert len(found) > 100 and "journal status=failed error=…" in found
    assert "…: offset 0: no journal header" in found and "event=stays_down process=… status=… log=…" in found
    assert missing(found, (ROOT / "docs" / "operations.md").read_text()) == []


def test_every_refusal_says_what_to_do_or_has_its_line() -> None:
    found = refusals()
    deep = {"the signer refuses: …", "… owns no SUI to pay gas with", "the blob store is not reachable"}
    assert {"the core is not reachable", "the gateway refused the key: …"} | deep <= set(found)
    assert missing(found, (ROOT / "docs" / "operations.md").read_text()) == []
    assert all(map(is_bare, ("the cat is out", "the cat is out: …", "house …: the cat is out")))
    assert not is_bare("the cat is out: let it in")


def test_a_message_without_a_line_is_found() -> None:
    source = 'log.error(\n    "event=new_trouble number=%d", 3)\nraise JournalCorrupt(f"{path}: eaten by mice")\n'
    texts = [*logged(source), *raised(source)]
    assert texts == ["event=new_trouble number=…", "…: eaten by mice"]
    assert raised_in_cython('raise JournalFailed(\n    f"{path}: eaten by "\n    "rats"\n)') == ["…: eaten by rats"]
    page = (ROOT / "docs" / "operations.md").read_text()
    assert len(missing(dict.fromkeys(texts, "x.py"), page)) == 2


def test_every_line_of_the_runbook_is_of_a_message() -> None:
    page, found = (ROOT / "docs" / "operations.md").read_text(), messages()
    told = {code for code in re.findall(r"`((?:event|settlement)=[^`]+)`", page)}
    assert len(told) > 30
    assert [code for code in sorted(told) if not any(text.startswith(code) for text in found)] in ([], ["event=stops"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (JournalCorrupt("x: offset 5"), 3), (AssertionError("sums differ"), 3), (JournalFailed("errno 5"), 3),
        (LocalFault("y"), 1), (Unavailable("z"), 1), (OSError(24, "too many open files"), 1),
    ],
)  # fmt: skip
def test_a_process_ends_with_one_line_and_the_status_of_the_runbook(
    error: BaseException, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert stopped("core", error) == status
    last = caplog.records[-1].getMessage()
    assert "\n" not in last and last.startswith(f"event=stops process=core error={type(error).__name__}: ")
    assert ("docs/operations.md" in last) == (status == 3)


def test_no_space_at_the_start_may_pass_and_a_failed_sync_may_not() -> None:
    for code, status in ((28, 1), (122, 1), (5, 3)):
        try:
            raise JournalFailed("opening the journal") from OSError(code, "x")
        except JournalFailed as error:
            assert stopped("core", error) == status
