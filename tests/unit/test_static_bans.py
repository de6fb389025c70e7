"""What no source may do: the core stays a function of its commands, no fault is swallowed, no queue grows for ever.

engine/    no clock, random, float, set whose order shows, hash(), thread, I/O: everything comes with the command
anywhere   no exception is dropped without a reason on the spot, or one of a kind that is no fault; none is raised where
           Cython prints it and goes on (`noexcept`)
           Cython prints it and goes on (`noexcept`); a broken invariant, or a journal that failed, ends in a raise
anywhere   each queue has a bound where it is made, or the list below says what bounds it; a list that only grows, too
Each check is shown to fail on what it forbids.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("engine", "files", "gateway", "persistence", "marketdata", "settlement", "platform_api", "byline")
Found = Iterator[tuple[int, str]]
"""Line and what is wrong there."""

# ---------------------------------------------------------------------------------------------------------- the core

MODULES = {
    "__future__", "collections", "collections.abc", "cpython", "cython", "dataclasses", "engine", "enum", "fractions",
    "functools", "hashlib", "libc", "msgspec", "numpy", "operator", "os", "re", "sortedcontainers", "struct", "types",
    "typing",
}  # fmt: skip
"""All that the core may import. `os` for one call, `CALLS_OF_OS`."""
C_HEADERS = {"libc.stdint", "libc.string", "libc.stdlib", "libc.errno", "libc.limits"}
CALLS = {
    "__import__", "clock", "compile", "eval", "exec", "float", "globals", "hash", "id", "input", "open", "print",
    "rand", "round", "time",
}  # fmt: skip
MEMBERS = {
    "__hash__", "average", "datetime64", "default_rng", "divide", "double", "float16", "float32", "float64", "floating",
    "linspace", "longdouble", "mean", "random", "sqrt", "timedelta64", "true_divide", "truediv",
}  # fmt: skip
"""Floats, clocks and random numbers that numpy and operator would give, and a hash that is another in each process."""
CALLS_OF_OS = {"engine/core.pyx": "os.urandom(8)"}
"""Where the keys of the id map begin, so that nobody can choose ids that collide; no result depends on it."""
WORDS = {
    "PyObject_Hash", "Py_HashPointer", "_Py_HashPointer", "clock_gettime", "float", "gettimeofday", "intptr_t",
    "pthread", "rand", "srand", "thread", "uintptr_t", *MEMBERS,
}  # fmt: skip
FLOAT_TYPE = re.compile(r"[<>=|]?(?:[fc](?:2|4|8|16)|[mM]8(?:\[\w+\])?|float\d*|double)")
"""Of a field in a dtype."""
LINES = (
    (re.compile(r"(?<![\w.])\d+\.\d|(?<![\w.])(?!0x)\d+e\d"), "has a float"),
    (re.compile(r"(?<!/)/(?!/)"), "divides, of objects into a float"),
    (re.compile(r"\*\*=?\s*-"), "raises to a negative power"),
    (re.compile(r"<\s*(?:unsigned\s+)?(?:int|long|short|char|s?size_t|Py_ssize_t|u?int\d+_t)\s*>\s*&"), "an address"),
    (re.compile(r"\.(?:keys|items)\(\)\s*[-&|^]|[-&|^]\s*[\w.\[\]]+\.(?:keys|items)\(\)"), "makes a set of keys"),
)
"""In a line of Cython. C divides whole numbers by `/` too: `//` does so whatever the type."""
ORDER_DOES_NOT_SHOW = {
    "engine/reference/money.py": "for asset in {asset for _, asset in touched}",
    "engine/reference/digest.py": "return {(7, (o.account, client_id))",
    "engine/messages/encode.py": "_ALLOWED = {kind: frozenset(",
}
"""Each asset is judged by itself and all give the same code; a sum of mixed hashes; membership alone."""


def plain(source: str, text: str = " ") -> str:
    """Cython source with comments blanked and strings made of `text`, line for line."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " " if match[0][0] == "#" else text, match[0])

    texts = r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(texts + r"|#[^\n]*", blank, source)


ASKED = r"\.(?:add|discard|remove|update|clear|isdisjoint|issubset|issuperset)\("
HIDES = ("sorted", "len", "frozenset", "min", "max", "any", "all")


def sets_in_cython(source: str) -> Found:
    """Displays, comprehensions and calls; of a `set()` whose name is no more than asked no order shows."""
    text = plain(source, "_")
    for match in re.finditer(r"\{(?!\s*\*\*)[^{}:]*[^{}:\s][^{}:]*\}", text):
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if not re.search(r"\bin\s*$", before) or re.search(r"\bfor\s+[\w\s,()]+\s+in\s*$", before):
            yield text.count("\n", 0, match.start()) + 1, "makes a set whose order may show"
    names = set(re.findall(r"(?<![\w.])(?:frozen)?set\s+(\w+)", text))
    for match in re.finditer(r"(?<![\w.])(?:frozen)?set\s*\(", text):
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if made := re.search(r"(\w+)\s*=\s*$", before):
            names.add(made[1])
        elif not re.search(r"(?<![\w.])(?:sorted|len)\(\s*$", before):
            yield text.count("\n", 0, match.start()) + 1, "makes a set whose order may show"
    for name in sorted(names):
        for match in re.finditer(rf"(?<!\w){name}(?!\w)", text):
            before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            behind = text[match.end() : match.end() + 16]
            is_bound = re.search(r"(?:\bset|\bself\.|^)\s*$", before) and re.match(r"\s*(?:=[^=]|$|[,)\n])", behind)
            is_in = re.search(r"\bin\s+(?:\w+\.)*$", before) and not re.search(r"\bfor\b[^:]*$", before)
            is_counted = re.search(r"(?<![\w.])(?:sorted|len)\((?:\w+\.)*$", before) and behind[:1] == ")"
            if not (is_bound or is_in or is_counted or re.match(ASKED, behind)):
                yield text.count("\n", 0, match.start()) + 1, f"uses the set {name}, whose order may show"


def banned_in_cython(path: str, source: str) -> Found:
    yield from sets_in_cython(source)
    text = plain(source)
    for number, (line, original) in enumerate(zip(text.splitlines(), source.splitlines(), strict=False), 1):
        if match := re.match(r"\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", line):
            name = match[1] or match[2]
            if name.split(".")[0] not in MODULES or (name.startswith("libc.") and name not in C_HEADERS):
                yield number, f"imports {name}"
        yield from ((number, f"calls {call}") for call in re.findall(r"(?<![\w.])(\w+)\s*\(", line) if call in CALLS)
        yield from ((number, f"says {word}") for word in re.findall(r"\w+", line) if word in WORDS)
        yield from ((number, what) for pattern, what in LINES if pattern.search(line))
        if "os." in line and re.search(r"(?<!\w)os\.", line) and CALLS_OF_OS.get(path, "\0") not in original:
            yield number, "calls the operating system"


def banned_in_python(path: str, source: str, sets: Collection[str] = ()) -> Found:
    """`sets`: names that are sets in other modules (`sets_named`)."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    lines, named = source.splitlines(), {*sets, *sets_named(tree)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from ((line, f"imports {name}") for name in names if name.split(".")[0] not in MODULES - {"os"})
            parts = {part for alias in node.names for part in alias.name.split(".")}
            yield from ((line, f"imports {name}") for name in sorted(parts & MEMBERS))
        elif isinstance(node, ast.Attribute) and node.attr in MEMBERS:
            yield line, f"says {node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield line, f"calls {node.func.id}"
        elif isinstance(node, ast.Constant) and (
            isinstance(node.value, float) or (isinstance(node.value, str) and FLOAT_TYPE.fullmatch(node.value))
        ):
            yield line, "has a float"
        elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div):
            yield line, "divides into a float"
        elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Pow):
            exponent = node.right if isinstance(node, ast.BinOp) else node.value
            if isinstance(exponent, ast.UnaryOp) and isinstance(exponent.op, ast.USub):
                yield line, "raises to a negative power"
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            yield line, "has state of the module"
        if _is_set(node) or (isinstance(node, (ast.Name, ast.Attribute)) and _last(node) in named):
            allowed = ORDER_DOES_NOT_SHOW.get(path, "\0") in lines[line - 1]
            if not allowed and not _order_is_hidden(node, parents):
                yield line, "makes or uses a set whose order may show"


def sets_named(tree: ast.AST) -> Iterator[str]:
    """Names and attributes that are a set, by what they are given or by what is said of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _is_set(node.value):
            yield from filter(None, map(_last, node.targets))
        elif isinstance(node, ast.NamedExpr) and _is_set(node.value):
            yield node.target.id
        elif isinstance(node, ast.AnnAssign) and (_is_set_type(node.annotation) or _is_set(node.value)):
            yield _last(node.target)
        elif isinstance(node, ast.arg) and _is_set_type(node.annotation):
            yield node.arg


def _last(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_set_type(node: ast.AST | None) -> bool:
    kind = node.value if isinstance(node, ast.Subscript) else node
    return kind is not None and _last(kind) in ("set", "frozenset", "Set", "AbstractSet", "MutableSet", "FrozenSet")


def _is_set(node: ast.AST | None) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)):
        calls = [side.func for side in (node.left, node.right) if isinstance(side, ast.Call)]
        return any(_last(call) in ("keys", "items") for call in calls)
    called = node.func if isinstance(node, ast.Call) else None
    makes = isinstance(called, ast.Name) and called.id in ("set", "frozenset")
    given = isinstance(node, ast.keyword) and _last(node.value) in ("set", "frozenset")  # default_factory=set
    return isinstance(node, (ast.Set, ast.SetComp)) or makes or given


def _order_is_hidden(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Sorted, counted, compared, asked, or given a name: what is done by that name is looked at by itself."""
    parent = parents[node]
    if isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)) or isinstance(parent, ast.Compare):
        return True
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name):
        return parent.func.id in HIDES and not parent.keywords  # a key may rank two of them alike
    if isinstance(parent, ast.Attribute):
        return re.fullmatch(ASKED, f".{parent.attr}(") is not None
    return isinstance(parent, (ast.Assign, ast.AnnAssign)) and _is_set(node)


def core_sources() -> list[Path]:
    return [path for kind in ("*.py", "*.pyx", "*.pxd") for path in sorted((ROOT / "engine").rglob(kind))]


def check_core(path: Path, sets: Collection[str]) -> list[str]:
    relative, source = path.relative_to(ROOT).as_posix(), path.read_text()
    python = path.suffix == ".py"
    found = banned_in_python(relative, source, sets) if python else banned_in_cython(relative, source)
    return [f"{relative}:{line}: {what}" for line, what in found]


C_INCLUDES = {
    "emmintrin.h", "errno.h", "immintrin.h", "stddef.h", "stdint.h", "stdlib.h", "string.h", "sys/mman.h",
}  # fmt: skip
OUTSIDE = {
    "engine/arithmetic.h": ({"time.h"}, {"nanosleep"}),
    "engine/stream.h": ({"fcntl.h", "unistd.h"}, {"pwrite", "sync_file_range"}),
}
"""The pace of joining pages, on a thread beside the core's; the snapshot, written by a forked child."""
SYSTEM_CALLS = {
    "clock", "clock_gettime", "exec", "fdatasync", "fopen", "fork", "fprintf", "fread", "fsync", "fwrite",
    "getentropy", "getenv", "getpid", "getrandom", "gettimeofday", "nanosleep", "open", "openat", "poll", "pread",
    "printf", "pthread_create", "pwrite", "pwritev", "rand", "random", "read", "recv", "send", "sleep", "socket",
    "sync_file_range", "syscall", "system", "time", "timespec_get", "usleep", "write", "writev",
}  # fmt: skip


def plain_c(source: str) -> str:
    """C with comments and strings blanked, line for line."""
    texts = r'/\*[\s\S]*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'
    return re.sub(texts, lambda match: re.sub(r"[^\n]", " ", match[0]), source)


def banned_in_c(path: str, source: str) -> Found:
    """System headers, and calls of the operating system; also in what Cython declares of C."""
    headers, calls = OUTSIDE.get(path, (set(), set()))
    for number, line in enumerate(source.splitlines(), 1):
        match = re.match(r'\s*(?:#\s*include\s*<|cdef extern from "<)([^>]+)>', line)
        if match and match[1] not in C_INCLUDES | headers:
            yield number, f"includes {match[1]}"
    text = plain_c(source) if path.endswith(".h") else plain(source)
    for number, line in enumerate(text.splitlines(), 1):
        for call in re.findall(r"(?<![\w.>])(\w+)\s*\(", line):
            if call in SYSTEM_CALLS - calls:
                yield number, f"calls {call}"


def test_the_c_of_the_core_asks_the_system_for_nothing() -> None:
    sources = [path for kind in ("*.h", "*.pyx", "*.pxd") for path in sorted((ROOT / "engine").rglob(kind))]
    assert sum(path.suffix == ".h" for path in sources) >= 4
    found = [
        f"{relative}:{line}: {what}"
        for path in sources
        for relative in [path.relative_to(ROOT).as_posix()]
        for line, what in banned_in_c(relative, path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("engine/x.h", "#include <time.h>"), ("engine/x.h", "    nanosleep(&rest, NULL);"),
        ("engine/arithmetic.h", "    clock_gettime(CLOCK_MONOTONIC, &t);"), ("engine/stream.h", "    write(1, a, 2);"),
        ("engine/x.pyx", 'cdef extern from "<sys/random.h>" nogil:'),
        ("engine/x.pxd", 'cdef extern from "<unistd.h>":'),
        ("engine/x.pxd", "    int timespec_get(void* t, int b)"),
    ],
)  # fmt: skip
def test_the_ban_on_c_can_fail(path: str, line: str) -> None:
    assert list(banned_in_c(path, line + "\n"))
    assert not list(banned_in_c("engine/x.h", "/* time( of day */ memcpy(a, b, 3); // write(1)\n"))


def test_the_core_is_a_function_of_its_commands() -> None:
    sources = core_sources()
    assert len(sources) > 50
    trees = [ast.parse(path.read_text()) for path in sources if path.suffix == ".py"]
    attributes = {name for tree in trees for name in sets_named(tree) if _is_attribute(name, tree)}
    assert attributes == {"groups"}
    assert [found for path in sources for found in check_core(path, attributes)] == []


def _is_attribute(name: str, tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == name for node in ast.walk(tree))


def test_a_set_of_another_module_is_followed() -> None:
    for use, count in (("for x in s.groups: pass", 1), ("x = list(s.groups)", 1), ("y = x in s.groups", 0)):
        assert len(list(banned_in_python("engine/x.py", use, {"groups"}))) == count


@pytest.mark.parametrize(
    "line",
    [
        "import time", "from datetime import datetime", "import random", "import threading", "import asyncio",
        "x = 0.5",
        "x = a / b", "x = hash(a)", "for x in {1, 2}: pass", "y = [x for x in set(a)]", "y = list({a for a in b})",
        "x = float(a)", "f = open('x')", "print(1)", "from pathlib import Path", "import os", "y = id(a)", "x = 1e9",
        "s: set[int] = set(); x = [k for k in s]", "s = set(a); y = list(s)", "s = {1, 2}; x, *y = s", "f = b.f | {1}",
        "s: frozenset[int] = g(); y = tuple(s)", "s = set(); y = s.pop()", "s = set(); y = s", "s = set(); g(s)",
        "self.s: set[int] = set(); y = sum(self.s)", "for k in frozenset(a): pass", "y = sorted(set(a), key=g)",
        "for x in a.keys() & b.keys(): pass", "y = list(a.items() - b)", "s: object = field(default_factory=set)",
        "s = a.keys() | b; y = list(s)", "y = list(s := set(a))", "g = lambda s: 0; x: set[int] = a; y = [*x]",
        "x = np.random.rand()", "x = np.datetime64('now')", "x = np.float64(1)", "import numpy.random",
        "from numpy import random", "from operator import truediv", "x = a.mean()", "x = np.dtype([('a', '<f8')])",
        "a /= 2", "x = 1 ** -1", "x = a ** -b", "a **= -1", "x = a.__hash__()", "x = object().__hash__()",
        "x = __import__('time')", "x = globals()", "from os import urandom", "import sys",
    ],
)  # fmt: skip
def test_the_ban_on_python_can_fail(line: str) -> None:
    assert list(banned_in_python("engine/x.py", f"def f(a, b):\n    {line}\n" if "import" not in line else line))


@pytest.mark.parametrize(
    "line",
    [
        "from libc.time cimport time", "from libc.stdlib cimport rand", "cdef double x", "cdef float x = 1",
        "x = hash(y)",
        "from posix.unistd cimport write", "import time", "x = 1.5", "x = 2e9", "for i in set(a): pass", "print(x)",
        "from cython.parallel cimport prange, thread", "clock_gettime(0, &t)", "x = os.getpid()",
        "from libc.stdio cimport x", "x = {1, 2}", 'x = {"a"}', "x = {y for y in z}", "for y in {1, 2}: pass",
        "x = [y for y in {1, 2}]", "f({\n    a,\n    b,\n})",
        "cdef set s = set(a)\nfor x in s: pass", "cdef object s = set(a)\nfor x in s: pass", "f(set(a))",
        "cdef set s\ny = list(s)", "s = frozenset(a)\ny = [x for x in s]", "cdef set s = set()\nreturn s",
        "self.s = set()\nfor x in self.s: pass", "cdef int f(set s):\n    for x in s: pass", "s = set()\ny = s.pop()",
        "x = a / b", "cdef int f():\n    return a / b", "x /= 2", "x = a/b", "x = a ** -1", "x **= -b",
        "s = a.keys() & b.keys()", "for s in a.keys() & b.keys(): pass", "s = c | a.items()",
        "x = a.__hash__()", "x = PyObject_Hash(a)", "x = <int>&a", "x = < unsigned long >&a[1]", "x = <uintptr_t>a",
        "x = <size_t>&a", "x = np.datetime64(a)", "x = np.float64(a)", "x = __import__(a)",
    ],
)  # fmt: skip
def test_the_ban_on_cython_can_fail(line: str) -> None:
    assert list(banned_in_cython("engine/x.pyx", line + "\n"))


def test_words_in_texts_and_comments_are_no_offence() -> None:
    source = '"""The time of a float."""\nx = "import time, 1.5"  # hash(x) / 2.0\ncdef int64_t y = 3\n'
    source += "z = x in {1, 2} or y not in {3}\nd = {}\ne = {1: 2, **d}\nf = {**d}\n"
    source += "cdef set s = set()\ns.add(x)\nif x in s and len(s): pass\ny = sorted(s)\nz = a // b + <size_t>c\n"
    source += 'cdef int f(set s) except -1:\n    return x not in s\nself.set_a(set_b)\nx = <char*>&a + 2 ** 3\n'
    assert list(banned_in_cython("engine/x.pyx", source)) == []
    source = "s: set[int] = set()\nself.t = {1}\ns.add(1)\ny = 1 in s and len(self.t)\nz = sorted(s) + a // 2 ** 3\n"
    assert list(banned_in_python("engine/x.py", source + "if a.keys() & b == c: pass\nself.t = set()\n")) == []
    assert list(banned_in_python("engine/x.py", 'x = "float(1.5)"  # 0.5\ny = sorted({1, 2})\n')) == []


# -------------------------------------------------------------------------------------------- exceptions that vanish

NO_FAULT = {
    "TimeoutError", "CancelledError", "KeyboardInterrupt", "StopIteration", "StopAsyncIteration", "FileNotFoundError",
    "ProcessLookupError", "FileExistsError", "BlockingIOError", "InterruptedError", "_Enough", "KeyError",
    "UnicodeDecodeError",
}  # fmt: skip
"""Kinds that are an ordinary answer: nothing to wait for, nothing there, somebody was first, enough was read."""


BROAD = {
    "", "AssertionError", "BaseException", "Exception", "ExchangeError", "JournalCorrupt", "JournalFailed",
    "LocalFault", "OSError", "OutcomeUnknown", "PostgresError", "RemoteFault", "RuntimeError", "Unavailable",
}  # fmt: skip
"""Kinds that hold faults of any sort, or end a process: answering them with a constant, or counting them, tells nobody
either."""
AWAY = {"ExchangeError", "OutcomeUnknown", "RemoteFault", "Unavailable", "Refused"}
"""Of these a line of the log that all may read is enough: a peer that is away for a while, and comes back."""
FINAL = {"AssertionError", "JournalCorrupt", "JournalFailed"}
"""After these nobody goes on: the handler raises, or stops the process."""
STOPS = {"_exit", "_fatal", "exit", "fail", "on_fatal"}
ENDED = {
    "persistence/restore.py": ("why, listed = str(error), []", "what an interrupted restore left is of no use: told"),
    "settlement/chain/localsui/__main__.py": ("no chain to run again", "a command that only reads: told, status 2"),
}
"""File → (the handler's line, how it ends)."""


def _is_nothing(part: ast.stmt, is_broad: bool) -> bool:
    if isinstance(part, (ast.Pass, ast.Continue)):
        return True
    if isinstance(part, ast.Expr):
        return isinstance(part.value, ast.Constant) or (is_broad and _is_unseen(part.value))
    kinds = (ast.Return, ast.Assign, ast.AnnAssign, ast.AugAssign)
    return is_broad and isinstance(part, kinds) and _is_constant(part.value)


def _is_constant(value: ast.expr | None) -> bool:
    """Also a container of nothing but constants, however it is made."""
    if isinstance(value, ast.UnaryOp):
        return _is_constant(value.operand)
    if isinstance(value, (ast.List, ast.Tuple, ast.Set)):
        return all(map(_is_constant, value.elts))
    if isinstance(value, ast.Dict):
        return all(map(_is_constant, [*value.keys, *value.values]))
    if isinstance(value, ast.Call):
        empty = {"bytearray", "bytes", "dict", "frozenset", "list", "set", "str", "tuple"}
        return ast.unparse(value.func) in empty and not value.args and not value.keywords
    return value is None or isinstance(value, ast.Constant)


def _is_log(value: ast.expr, levels: Collection[str] = ("info",)) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in levels


def _is_unseen(value: ast.expr) -> bool:
    """A line of the log that nobody gets who has not asked for it, or that says that all is well."""
    return _is_log(value, ("debug", "info"))


def _ends(body: list[ast.stmt]) -> bool:
    """Its last statement, in each branch, raises or stops the process; a call that stops may stand before."""
    last = body[-1]
    if any(isinstance(part, ast.Expr) and _stops(part.value) for part in body) or isinstance(last, ast.Raise):
        return True
    if isinstance(last, ast.If):
        return bool(last.orelse) and _ends(last.body) and _ends(last.orelse)
    return isinstance(last, (ast.With, ast.AsyncWith)) and _ends(last.body)


def _stops(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and _last(value.func) in STOPS


def swallowed(source: str) -> Found:
    """Handlers and suppressions that do nothing, say nothing, and give no reason on one of their lines; and those of
    FINAL that go on, whatever they say."""
    lines, tree = source.splitlines(), ast.parse(source)
    suppress = {"suppress", *(_other_names_of_suppress(tree) if "suppress" in source else ())}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            names, first, last = _names(node.type), node.lineno, node.body[-1].end_lineno or node.lineno
            is_broad = bool(set(names or [""]) & BROAD)
            nothing = all(_is_nothing(part, is_broad) for part in node.body)
            if set(names) <= AWAY:
                nothing = nothing and not any(isinstance(part, ast.Expr) and _is_log(part.value) for part in node.body)
            nothing = nothing or (bool(set(names) & FINAL) and not _ends(node.body))
            what = "drops " + (", ".join(names) or "everything")
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            calls = [call for call in calls if ast.unparse(call.func).rpartition(".")[2] in suppress]
            nothing, names = bool(calls), [name for call in calls for part in call.args for name in _names(part)]
            first = last = node.lineno
            what = "suppresses " + ", ".join(names)
        elif isinstance(node, ast.Try) and (leaving := _leaves(node.finalbody)) is not None:
            nothing, names, first, last = True, [], leaving.lineno, leaving.lineno
            what = "drops everything: it leaves a `finally`"
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in ("__exit__", "__aexit__"):
            nothing, names, first, last = _says_true(node), [], node.lineno, node.lineno
            what = f"suppresses everything: {node.name} returns True"
        else:
            continue
        reason = any("# " in lines[number - 1] for number in range(first, last + 1))
        if nothing and not reason and (not names or not set(names) <= NO_FAULT):
            yield first, what


def _leaves(body: list[Any], *, in_loop: bool = False) -> ast.stmt | None:
    """A `return`, or a `break` or `continue` of a loop around it: in a `finally` it ends what was raised."""
    for part in body:
        if isinstance(part, ast.Return) or (isinstance(part, (ast.Break, ast.Continue)) and not in_loop):
            return part
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        inside = in_loop or isinstance(part, (ast.For, ast.AsyncFor, ast.While))
        for field in ("body", "orelse", "handlers", "finalbody"):
            if (found := _leaves(getattr(part, field, []), in_loop=inside)) is not None:
                return found
    return None


def _says_true(node: ast.AST) -> bool:
    returned = [part.value for part in ast.walk(node) if isinstance(part, ast.Return)]
    return any(isinstance(value, ast.Constant) and bool(value.value) for value in returned)


def _other_names_of_suppress(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "contextlib":
            yield from (alias.asname for alias in node.names if alias.name == "suppress" and alias.asname)
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).rpartition(".")[2] == "suppress":
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def swallowed_in_cython(source: str) -> Found:
    """The same, of handlers and suppressions that are Python; what is not, as C's casts, does something."""
    lines = source.splitlines()
    names = re.compile(r"\s*(from contextlib import|[\w.]+\s*=[\s\w.]*\bsuppress\s*$)")
    imports = "".join(f"{line.strip()}\n" for line in lines if names.match(line))
    for number, line in enumerate(lines):
        begin = re.match(r"(\s*)(except\b[^:]*:|with\b.*:)", plain(line))
        if begin is None:
            continue
        block = [line]
        for other in lines[number + 1 :]:
            if other.strip() and not other.startswith(begin[1] + " "):
                break
            block.append(other)
        text = textwrap.dedent("\n".join(block)) + "\n"
        text = re.sub(r"<[\w .]+\**>|(?<=[(,=])\s*&(?=\w)", "", text)  # casts and addresses
        before = imports + ("try:\n    f()\n" if begin[2].startswith("except") else "")
        try:
            found = list(swallowed(before + text))
        except SyntaxError:
            continue
        at = before.count("\n")
        yield from ((number + 1, what) for inner, what in found if inner == at + 1)


SAYS = re.compile(r"(?<![\w.])(\w+)\((?:[^()]|\([^()]*\))*\)\s*(except|noexcept)\b")


def raising(sources: Iterable[str]) -> set[str]:
    """Functions that say `except` wherever they are declared; of a name that two modules give, neither."""
    found: dict[str, set[str]] = {"except": set(), "noexcept": set()}
    for source in sources:
        for match in SAYS.finditer(plain(source)):
            found[match[2]].add(match[1])
    return found["except"] - found["noexcept"]


def lost_in_noexcept(source: str, may_raise: Collection[str] = ()) -> Found:
    """What is raised in a function that says `noexcept`, by itself or by what it calls: it is printed, and the caller
    goes on with a 0."""
    lines, calls = plain(source).splitlines(), "|".join(sorted({*may_raise, *raising([source])})) or "(?!)"
    lost = re.compile(rf"(?<!\w)(?:raise|assert)(?!\w)|(?<![\w.])(?:self\.)?(?:{calls})\(")
    for number, line in enumerate(lines):
        ends = re.search(r"\)\s*noexcept(?:\s+nogil|\s+with\s+gil)?\s*:(.*)$", line)
        if ends is None:
            continue
        begin = next(before for before in reversed(lines[: number + 1]) if re.match(r"\s*cp?def\b", before))
        body, indent = [(number, ends[1])], len(begin) - len(begin.lstrip())
        for at, other in enumerate(lines[number + 1 :], number + 1):
            if other.strip() and len(other) - len(other.lstrip()) <= indent:
                break
            body.append((at, other))
        yield from ((at + 1, text.strip()) for at, text in body if lost.search(text))


def _names(node: ast.expr | None) -> list[str]:
    if node is None:
        return []
    if isinstance(node, ast.Tuple):
        return [name for part in node.elts for name in _names(part)]
    return [ast.unparse(node).rpartition(".")[2]]


def test_no_exception_is_swallowed_without_a_reason() -> None:
    found, listed = [], set()
    for path in [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]:
        relative, source = path.relative_to(ROOT).as_posix(), path.read_text()
        for line, what in swallowed(source):
            if relative in ENDED and ENDED[relative][0] in source.splitlines()[line]:
                listed.add(relative)
            else:
                found.append(f"{relative}:{line}: {what}")
    assert found == []
    assert listed == set(ENDED), "a row of the list that no handler needs any more"


def test_no_exception_is_swallowed_in_cython_without_a_reason() -> None:
    sources = {path: path.read_text() for package in PACKAGES for path in sorted((ROOT / package).rglob("*.p[xy][dx]"))}
    may_raise = raising(sources.values())
    assert len(may_raise) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path, source in sources.items()
        for line, what in (*swallowed_in_cython(source), *lost_in_noexcept(source, may_raise))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("try:\n    f()\nexcept OSError:\n    pass\n", 1), ("try:\n    f()\nexcept:\n    pass\n", 1),
        ("try:\n    f()\nexcept OSError:\n    x = 0\n", 1), ("try:\n    f()\nexcept BaseException:\n    ...\n", 1),
        ("try:\n    x = f()\nexcept ValueError:\n    x = None\n", 0),
        ("try:\n    f()\nexcept (ValueError, OSError):\n    continue\n", 1),
        ("try:\n    f()\nexcept OSError:\n    pass  # it is being closed\n", 0),
        ("try:\n    f()\nexcept OSError as e:\n    log.error(e)\n", 0),
        ("try:\n    f()\nexcept KeyError:\n    pass\n", 0),
        ("with contextlib.suppress(Exception):\n    f()\n", 1), ("with suppress(OSError, KeyError):\n    f()\n", 1),
        ("with contextlib.suppress(asyncio.TimeoutError):\n    f()\n", 0),
        ("with contextlib.suppress(OSError):  # told already\n    f()\n", 0),
        ("try:\n    f()\nexcept Exception:\n    x = {}\n", 1),
        ("try:\n    f()\nexcept Exception:\n    return []\n", 1),
        ("try:\n    f()\nexcept OSError:\n    x: int = -1\n", 1),
        ("try:\n    f()\nexcept Exception:\n    x = (0, [])\n", 1),
        ("try:\n    f()\nexcept Exception:\n    return dict()\n", 1),
        ("try:\n    f()\nexcept ValueError:\n    x = {}\n", 0),
        ("try:\n    f()\nexcept Exception:\n    x = [y]\n", 0),
        ("try:\n    f()\nexcept AssertionError:\n    return False\n", 1),
        ("try:\n    f()\nexcept JournalFailed:\n    return\n", 1),
        ("try:\n    f()\nexcept JournalCorrupt as e:\n    raise Refused() from e\n", 0),
        ("try:\n    f()\nexcept Exception:\n    x.errors += 1\n", 1),
        ("try:\n    f()\nexcept Exception:\n    log.debug('x')\n", 1),
        ("try:\n    f()\nexcept OSError as e:\n    log.info('%s', e)\n", 1),
        ("try:\n    f()\nexcept ValueError:\n    log.info('x')\n", 0), ("try:\n    f()\nexcept OSError: pass\n", 1),
        ("try:\n    f()\nexcept AssertionError as e:\n    log.error('%s', e)\n", 1),
        ("try:\n    f()\nexcept JournalFailed as e:\n    x = str(e)\n", 1),
        ("try:\n    f()\nexcept JournalCorrupt as e:\n    self.last = e\n", 1),
        ("try:\n    f()\nexcept (ValueError, errors.JournalFailed) as e:\n    g(e)\n", 1),
        ("try:\n    f()\nexcept AssertionError as e:\n    if x:\n        raise\n    g(e)\n", 1),
        ("try:\n    f()\nexcept AssertionError as e:\n    if x:\n        raise\n    else:\n        g(e)\n", 1),
        ("try:\n    f()\nexcept AssertionError as e:\n    if x:\n        raise\n    else:\n        os._exit(1)\n", 0),
        ("try:\n    f()\nexcept JournalFailed as e:\n    self._fatal(e)\n    return None\n", 0),
        ("try:\n    f()\nexcept JournalFailed as e:\n    log.error(e)\n    raise\n", 0),
        ("try:\n    f()\nexcept ExchangeError:\n    return None\n", 1),
        ("try:\n    f()\nexcept Unavailable:\n    return False\n", 1),
        ("try:\n    f()\nexcept (Unavailable, Refused) as e:\n    log.info(e)\n    return False\n", 0),
        ("try:\n    f()\nexcept Unavailable as e:\n    log.debug(e)\n", 1),
        ("try:\n    f()\nexcept* OSError:\n    pass\n", 1),
        ("import contextlib as c\nwith c.suppress(Exception):\n    f()\n", 1),
        ("from contextlib import suppress as quiet\nwith quiet(OSError):\n    f()\n", 1),
        ("quiet = contextlib.suppress\nwith quiet(OSError):\n    f()\n", 1),
    ],
)  # fmt: skip
def test_a_swallowed_exception_is_found(source: str, count: int) -> None:
    source = "for x in y:\n" + "".join(f"    {line}\n" for line in source.splitlines())
    assert len(list(swallowed(source))) == count
    assert len(list(swallowed_in_cython(f"cdef int f() except -1:\n    pass\n{source}x = <int>y\n"))) == count


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("try:\n    f()\nfinally:\n    return 1\n", 1), ("try:\n    f()\nfinally:\n    if x:\n        break\n", 1),
        ("try:\n    f()\nfinally:\n    for a in b:\n        break\n", 0),
        ("try:\n    return f()\nfinally:\n    g()\n", 0),
        ("try:\n    f()\nfinally:\n    with x:\n        return\n", 1),
        ("try:\n    f()\nfinally:\n    try:\n        g()\n    except E as e:\n        return e\n", 1),
        ("try:\n    f()\nfinally:\n    def g():\n        return 1\n", 0),
        ("def __exit__(self, *a):\n    return True\n", 1),
        ("async def __aexit__(self, *a):\n    return await f()\n", 0),
        ("def __exit__(self, *a):\n    return True  # f\n", 1),
        ("def __exit__(self, *a):  # why\n    return True\n", 0),
    ],
)  # fmt: skip
def test_an_exception_that_is_left_behind_is_found(body: str, count: int) -> None:
    assert len(list(swallowed("for x in y:\n" + textwrap.indent(body, "    ")))) == count


def test_a_handler_that_does_something_in_cython_is_none_that_swallows() -> None:
    for line in ("log.error(<int>e)", "x = str(<object>e)", "f(&x)"):
        assert list(swallowed_in_cython(f"try:\n    f()\nexcept AssertionError as e:\n    {line}\n"))
    for line in ("x = <int>y", "self.fail(&self.ring)", "with gil: raise", "return self.x"):
        assert not list(swallowed_in_cython(f"try:\n    f()\nexcept Exception:\n    {line}\n"))
    assert [line for line, _ in swallowed_in_cython("try:\n    f()\nexcept Exception: return 0\nx = 1\n")] == [3]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("cdef int f(int x) noexcept nogil:\n    if x:\n        raise ValueError(x)\n    return 0\n", 1),
        ("cdef void f(\n    int x,\n) noexcept:\n    assert x\n", 1), ("cdef int f() noexcept: raise OSError\n", 1),
        ("    cdef int f(self) noexcept with gil:\n        x = 1\n\n        assert x\n", 1),
        ("cdef int f(int (*g)(void*) noexcept nogil) except -1:\n    raise OSError(1)\n", 0),
        ("cdef int f() noexcept nogil:\n    return 0\n\ncdef int g() except -1:\n    raise OSError\n", 0),
        ('cdef int f() noexcept:\n    """raise"""\n    return raised\n', 0),
        ("cdef int g(int (*h)(int)) except -1:\n    raise OSError\n\ncdef int f() noexcept:\n    return g(h)\n", 1),
        ("cdef int f(A self) noexcept nogil:\n    return other(1) + self.other(2) + self.port.other(3)\n", 1),
        ("cdef int f(A self) noexcept nogil:\n    return self.port.other(3) + another(4)\n", 0),
    ],
)  # fmt: skip
def test_what_is_lost_in_a_function_without_exceptions_is_found(source: str, count: int) -> None:
    assert len(list(lost_in_noexcept(source, {"other"}))) == count


# --------------------------------------------------------------------------------------------------- queues that grow

QUEUES = re.compile(r"(?<!class )\b((?:Simple|Lifo|Priority|Joinable)?Queue|deque)(?:\[[^()\n=]*\])?\(")
FACTORIES = re.compile(
    r"[=(]\s*(?:\w+\.)*((?:Simple|Lifo|Priority|Joinable)?Queue|deque)(?:\[[^()\n=]*\])?\s*(?=[,)\n])"
)
"""A queue that is not made there, but named for someone who will make it, and cannot say how long it may be."""
BOUNDED_BY = {
    "engine/reference/matching.py": ("half[price].values()", "a copy of one price's orders, gone with the call"),
    "gateway/pulls.py": ("AT_ONCE", "the accounts of lost sessions times their sessions; sessions are bounded"),
    "gateway/hub.pyx": ("asks_max", "asks_max questions wait, then they are refused busy"),
    "gateway/rejections.py": ("_total_max", "at most twice total_max, the oldest go"),
    "gateway/server.py": ("replays_max", "replays_max, then they are refused busy"),
    "gateway/unsigned.py": ("WAITING_MAX", "WAITING_MAX, then whoever comes is to connect again"),
    "gateway/protection.py": ("FILLS_KEPT", "trips when there are more"),
    "marketdata/relay.py": ("BATCHES_MAX", "waits while there are as many"),
    "marketdata/ticker.py": ("popleft", "minutes of the last 24 hours"),
    "marketdata/server.py": ("long_answers_max", "of one reader; the second holds readers, each at most once"),
    "settlement/settler.py": ("_queue", "numbers of sealed batches that are on disk; the brake stops trading"),
    "settlement/brake.py": ("limit_s", "one pair a cut; past the limit markets are closed until they are settled"),
    "platform_api/live/connection.py": ("QUEUE_MAX", "at more the connection is ended as too slow"),
    "byline/client/event_queue.py": ("_size_max", "at more the reader is told what it missed"),
    "byline/traders.py": ("ACCOUNT_COUNT", "orders of the simulated traders; the core limits open orders"),
}
"""File → (a word there that is the bound, what bounds it)."""
LARGEST = 1 << 32
"""A number above it bounds nothing that a machine could hold."""
BOUND_PARTS = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
GROWS = {
    ("byline/feed/session.py", "FeedSession.latencies_ns"): "one number a request of a measured run, which ends",
    ("engine/reference/model.py", "State.events"): "begun anew by each command",
    ("platform_api/kernel/events.py", "Events._listeners"): "one a context, at the start",
    ("platform_api/royalties/reconciliation.py", "Reconciliation._others"): "one a context, at the start",
    ("settlement/brake.py", "Brake._names"): "markets, which the core bounds",
    ("settlement/brake.py", "Brake._phases"): "markets, which the core bounds",
    ("settlement/chain/localsui/interpreter.py", "Interpreter._results"): "calls of one transaction, bounded",
    ("settlement/watcher.py", "Watcher.arrivals"): "deposits, each paid for on the chain",
    ("settlement/watcher.py", "Watcher.exits"): "forced exits, each paid for on the chain",
}
"""(File, list) → what bounds it."""


def unbounded(source: str) -> Found:
    text = plain(source)
    for match in re.finditer(r"\b((?:Simple|Lifo|Priority|Joinable)?Queue|deque)\s+as\s+\w+", text):
        yield text.count("\n", 0, match.start()) + 1, f"{match[1]} under another name"
    for match in FACTORIES.finditer(text):
        yield text.count("\n", 0, match.start(1)) + 1, match[1] + " without a bound"
    for match in QUEUES.finditer(text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        inside = text[match.end() : end - 1].strip()
        if not _has_bound(match[1], inside):
            yield text.count("\n", 0, match.start()) + 1, match[0] + inside + ")"


def _has_bound(name: str, inside: str) -> bool:
    """Of the arguments of a queue: the bound is there, and neither None nor a number that means none."""
    if name == "SimpleQueue":
        return False
    call = ast.parse(f"f({inside})", mode="eval").body
    assert isinstance(call, ast.Call), inside
    place, keyword = (1, "maxlen") if name == "deque" else (0, "maxsize")
    bounds = [*call.args[place : place + 1], *(given.value for given in call.keywords if given.arg == keyword)]
    return bool(bounds) and all(_is_bound(choice, name == "deque") for choice in _choices(bounds[0]))


def _choices(bound: ast.expr) -> list[ast.expr]:
    """What it may be: `a or b`, `a if c else b`."""
    parts = bound.values if isinstance(bound, ast.BoolOp) else []
    parts = [bound.body, bound.orelse] if isinstance(bound, ast.IfExp) else parts
    return [choice for part in parts for choice in _choices(part)] or [bound]


def _is_bound(bound: ast.expr, zero_is: bool) -> bool:
    if _last(bound) in ("maxsize", "inf", "MAX_INT") or (isinstance(bound, ast.Call) and _last(bound.func) == "float"):
        return False
    if not all(isinstance(part, BOUND_PARTS) for part in ast.walk(bound)):
        return True  # a name
    value = eval(compile(ast.Expression(bound), "", "eval"), {"__builtins__": {}})  # of numbers and operators alone
    return value is not None and value <= LARGEST and (value > 0 or (zero_is and value == 0))


def growing(source: str) -> Found:
    """Lists that an object has empty at first, that its methods append to, and that none of them shortens."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        methods = [part for part in node.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))]
        first = [part for method in methods if method.name == "__init__" for part in ast.walk(method)]
        later = [part for method in methods if method.name != "__init__" for part in ast.walk(method)]
        made = [part for part in first if isinstance(part, (ast.Assign, ast.AnnAssign))]
        made = [part for part in made if isinstance(part.value, ast.List)]
        targets = [part.targets if isinstance(part, ast.Assign) else [part.target] for part in made]
        names = {_last(name) for group in targets for name in group}
        names -= {name for part in first for name in _shortens(part, is_first=True)}
        names -= {name for part in later for name in _shortens(part, is_first=False)}
        for part in later:
            if isinstance(part, ast.Call) and _last(part.func) in ("append", "extend", "insert"):
                receiver = part.func.value if isinstance(part.func, ast.Attribute) else None
                if isinstance(receiver, ast.Attribute) and receiver.attr in names:
                    names.discard(receiver.attr)
                    yield part.lineno, f"{node.name}.{receiver.attr} only grows"


def _shortens(part: ast.AST, *, is_first: bool) -> list[str]:
    if isinstance(part, ast.Call):
        if _last(part.func) in ("heappop", "heappushpop", "heapreplace"):
            return [_last(part.args[0])]
        is_method = isinstance(part.func, ast.Attribute) and part.func.attr in ("pop", "clear", "remove")
        return [_last(part.func.value)] if is_method and isinstance(part.func, ast.Attribute) else []
    if isinstance(part, ast.Subscript):
        cuts = isinstance(part.ctx, ast.Del) or (isinstance(part.ctx, ast.Store) and isinstance(part.slice, ast.Slice))
        return [_last(part.value)] if cuts else []
    begins_anew = isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and not is_first
    return [_last(part)] if begins_anew else []


def test_no_list_of_an_object_grows_for_ever() -> None:
    found, listed = [], set()
    for path in [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]:
        relative = path.relative_to(ROOT).as_posix()
        for line, what in growing(path.read_text()):
            name = (relative, what.split()[0])
            listed.add(name)
            if name not in GROWS:
                found.append(f"{relative}:{line}: {what}")
    assert found == []
    assert listed == set(GROWS), "a row of the list that no list needs any more"


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("self.q.append(x)", 1), ("self.q.extend(x)", 1), ("self.q.append(x)\n        self.q.pop(0)", 0),
        ("self.q.append(x)\n        self.q = []", 0), ("self.q.append(x)\n        del self.q[:5]", 0),
        ("self.q.append(x)\n        heapq.heappop(self.q)", 0), ("q.append(x)", 0), ("self.p.append(x)", 0),
        ("self.q.append(x)\n        self.q[3] = x", 1), ("self.q.append(x)\n        self.q[:] = x", 0),
    ],
)  # fmt: skip
def test_a_list_that_only_grows_is_found(body: str, count: int) -> None:
    for made in ("self.q: list[int] = []", "self.q = []"):
        source = f"class A:\n    def __init__(self):\n        {made}\n    def f(self, x):\n        {body}\n"
        assert len(list(growing(source))) == count


def test_every_queue_is_bounded_or_said_to_be() -> None:
    found, listed = [], set()
    for package in PACKAGES:
        for path in [*sorted((ROOT / package).rglob("*.py")), *sorted((ROOT / package).rglob("*.pyx"))]:
            relative, source = path.relative_to(ROOT).as_posix(), path.read_text()
            for line, what in unbounded(source):
                bound = BOUNDED_BY.get(relative)
                listed.add(relative)
                if bound is None or bound[0] not in source:
                    found.append(f"{relative}:{line}: {what}")
    assert found == []
    assert listed == set(BOUNDED_BY), "a row of the list that no queue needs any more"


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("q = asyncio.Queue()", True), ("q = asyncio.Queue(0)", True), ("q = deque()", True), ("q = deque(rows)", True),
        ("q: deque[int] = deque(\n    maxlen=5\n)", False), ("q = asyncio.Queue(16)", False),
        ("q = SimpleQueue()", True),
        ("q = queue.Queue(maxsize=9)", False), ("# deque()", False), ('"deque()"', False),
        ("q = asyncio.Queue(maxsize=-1)", True), ("q = asyncio.Queue(-1)", True), ("q = Queue()", True),
        ("q = Queue(LIMIT)", False), ("q = deque[int]()", True), ("q = deque[tuple[int, int]](rows)", True),
        ("q = deque([], maxlen=None)", True), ("q = deque([], 5)", False), ("q = mp.JoinableQueue()", True),
        ("q: deque[str] = field(default_factory=deque)", True), ("q = defaultdict(deque)", True),
        ("Q = asyncio.Queue", True), ("q = field(default_factory=asyncio.Queue[int])", True),
        ("def f(q: deque, r: asyncio.Queue) -> deque: ...", False), ("q = isinstance(x, deque)", False),
        ("from collections import deque as d\nq = d()", True), ("from queue import SimpleQueue as q", True),
        ("import queue as q\nx = q.SimpleQueue()", True), ("q = deque(maxlen=sys.maxsize)", True),
        ("q = Queue(maxsize=x or 0)", True), ("q = deque(a, x or None)", True), ("q = Queue(x or 16)", False),
        ("q = Queue(9 if x else 0)", True), ("q = Queue(maxsize=f(x))", False),
        ("q = deque(maxlen=1 << 62)", True), ("q = Queue(1 << 16)", False),
        ("q = deque(maxlen=float(x))", True), ("q = janus.Queue()", True),
        ("q = asyncio.Queue[int](0)", True), ("class Queue(Base):", False), ("q = EventQueue()", False),
    ],
)  # fmt: skip
def test_an_unbounded_queue_is_found(line: str, is_found: bool) -> None:
    assert bool(list(unbounded(line + "\n"))) == is_found


# ---------------------------------------------------------------- addresses of users

CALLERS = {"httpx", "aiohttp", "requests", "urllib.request", "urllib3", "http.client", "smtplib", "ftplib", "socket"}
"""With which a server calls an address. Redis, NATS and PostgreSQL have libraries of their own, and the operator's."""


def callers_in(source: str) -> list[str]:
    """What of CALLERS a Python source imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return sorted(name for name in names if any(f"{name}.".startswith(f"{caller}.") for caller in CALLERS))


def test_f72_the_api_has_nothing_to_call_an_address_of_a_user_with() -> None:
    """No webhook, no fetched cover: a link that a user gives is text (SSRF)."""
    found = {str(path): callers_in(path.read_text()) for path in (ROOT / "platform_api").rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}
    assert callers_in("import httpx\nfrom urllib import request") == ["httpx", "urllib.request"]
