"""The import arrows of docs/architecture.md, over Python and Cython sources."""

import re
from pathlib import Path

import pytest

from byline.processes.names import PROCESSES

ROOT = Path(__file__).parents[2]
OURS = {"engine", "files", "gateway", "marketdata", "persistence", "settlement", "platform_api", "byline", "bench"}
PEERS = {"gateway", "marketdata", "persistence", "settlement", "platform_api"}
CORE_USERS = ("gateway/sequencer", "persistence/recovery", "persistence/forked", "persistence/snapshot", "bench/")
STATEMENT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w., ]+))", re.MULTILINE)
NAMES = re.compile(r"^\s*from\s+engine\s+c?import\s+\(?([\w, \n]+)", re.MULTILINE)


def sources(package):
    return [path for kind in ("*.py", "*.pyx", "*.pxd", "*.pyi") for path in sorted((ROOT / package).rglob(kind))]


def imports(text):
    """Dotted names that a source imports, without docstrings and comments."""
    text = re.sub(r'"""[\s\S]*?"""', "", text)
    found = set()
    for module, plain in STATEMENT.findall(text):
        found |= {module} if module else {part.split(" as ")[0].strip() for part in plain.split(",")}
    for names in NAMES.findall(text):
        found |= {f"engine.{name.strip()}" for name in names.split(",") if name.strip()}
    return {name for name in found if name.split(".")[0] in OURS}


def wrong(path, name):
    """Why `path` may not import `name`; None if it may."""
    relative = path.relative_to(ROOT).as_posix()
    package, target = relative.split("/")[0], name.split(".")[0]
    if package == "engine":
        return None if target == "engine" else "engine imports nothing of ours"
    if package == "files":
        return None if target == "files" else "files imports nothing of ours, for all to stand on it"
    if relative.startswith("byline/client/"):
        return None if name.startswith(("engine.messages", "byline.client")) else "the client knows the messages alone"
    if relative.startswith("byline/processes/") and name.removeprefix("byline.processes.") in PROCESSES:
        return "a process loads its own parts alone; what several need has a file of its own"
    if name.startswith("engine.core") and not relative.startswith(CORE_USERS):
        return "only the sequencer, recovery and benches use engine.core"
    if package in PEERS:
        if target in PEERS - {package}:
            return f"{package} takes what it needs of {target} as a port"
        if target in ("byline", "bench"):
            return f"{package} is below {target}"
    return None


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_follow_the_arrows(package):
    paths = sources(package)
    assert paths, f"{package} has no sources"
    found = []
    for path in paths:
        for name in sorted(imports(path.read_text())):
            reason = wrong(path, name)
            if reason:
                found.append(f"{path.relative_to(ROOT)} imports {name}: {reason}")
    assert found == []


def test_each_process_is_a_file_by_its_name():
    bodies = {path.stem for path in sources("byline/processes") if "async def run(" in path.read_text()}
    assert bodies == set(PROCESSES)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("gateway/x.pyx", "from persistence.journal cimport Journal"), ("engine/x.py", "import byline"),
        ("engine/x.py", "from files.durable import write_whole"), ("files/x.py", "from engine.messages import layout"),
        ("marketdata/x.py", "from engine.core import Core"), ("settlement/x.py", "from engine import core"),
        ("platform_api/x.py", "import json, gateway.keys"), ("byline/client/x.py", "from byline.settings import S"),
        ("byline/processes/core.py", "from byline.processes.api import api_settings"),
    ],
)  # fmt: skip
def test_wrong_arrow_is_found(source, text):
    assert any(wrong(ROOT / source, name) for name in imports(text))
