"""What runs in compiled code reaches the guide of the fuzzers. With atheris' own runtime where it is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.guide import FLAGS, SEES, build_counter, environment
from tests.support.faulty_disk import compiler

NEEDS_ATHERIS = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris: make fuzz installs it")
pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")
NESTED = """
volatile int opened;
int opens(const unsigned char *data, int size) {
    if (size < 6 || data[0] != 0x51) return 0;
    if (data[1] != 0xE7) return 1;
    if (data[2] != 0x0C) return 2;
    if (data[3] != 0xB8) return 3;
    if (data[4] != 0x9D) return 4;
    if (data[5] != 0x26) return 5;
    opened++;
    return 6;
}
"""
"""Six bytes one behind the other: by chance one input in 2^48 opens it."""
RUNTIME = """
#include <stdint.h>
uint8_t *first, *behind;
uintptr_t *places, *behind_places, compared[2];
void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop) { first = start, behind = stop; }
void __sanitizer_cov_pcs_init(uintptr_t *start, uintptr_t *stop) { places = start, behind_places = stop; }
#define COMPARES(NAME, TYPE) void __sanitizer_cov_trace_##NAME(TYPE a, TYPE b) { compared[0] = a, compared[1] = b; }
COMPARES(cmp1, uint8_t) COMPARES(cmp2, uint16_t) COMPARES(cmp4, uint32_t) COMPARES(cmp8, uint64_t)
COMPARES(const_cmp1, uint8_t) COMPARES(const_cmp2, uint16_t) COMPARES(const_cmp4, uint32_t)
COMPARES(const_cmp8, uint64_t)
void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases) { compared[0] = value, compared[1] = cases[0]; }
"""
"""What libFuzzer does with the shim's words, in so far as a test looks at it: it remembers them."""
LOOKS = """
import ctypes, sys
me, nested = ctypes.CDLL(None), ctypes.CDLL(sys.argv[1])
word = lambda name: ctypes.c_void_p.in_dll(me, name).value
nested.opens(b"......", 6)
me.guide_begin()
assert me.guide_reached() == 0, "what ran before the beginning is not counted"
count = word("behind") - word("first")
assert word("behind_places") - word("places") == count * 16 and count % 4096 == 0
counters = (ctypes.c_uint8 * count).from_address(word("first"))
def run(data, times=1):
    ctypes.memset(counters, 0, count)
    for _ in range(times):
        nested.opens(data, len(data))
    return {at: counters[at] for at in range(count) if counters[at]}
key = bytes([0x51, 0xE7, 0x0C, 0xB8, 0x9D, 0x26])
ways = [run(key[:depth] + b"." * (6 - depth)) for depth in range(7)]
assert len({tuple(way) for way in ways}) == 7, "each condition behind another is told from those before it"
assert ways == [run(key[:depth] + b"." * (6 - depth)) for depth in range(7)], "the same input, the same blocks"
assert all(len(set(later) - set(way)) >= 1 for way, later in zip(ways, ways[1:]))
assert set(run(key, 1000).values()) == {255}, "a loop of many rounds does not look like none"
assert me.guide_reached() == len(set().union(*ways))
addresses = (ctypes.c_uint64 * (2 * count)).from_address(word("places"))
assert all(addresses[2 * at] for at in ways[6]) and len({addresses[2 * at] for at in ways[6]}) == len(ways[6])
run(key[:3] + b"@..")
assert set((ctypes.c_uint64 * 2).in_dll(me, "compared")) == {0xB8, ord("@")}, "what was compared is told"
"""
FUZZES = """
import ctypes, sys, atheris
nested = ctypes.CDLL(sys.argv[1])
def target(data):
    if nested.opens(data, len(data)) == 6:
        raise ZeroDivisionError("opened")
if sys.argv[2] == "seeing":
    ctypes.CDLL(None).guide_begin()
atheris.Setup([sys.argv[0], "-runs=300000", "-seed=1", "-max_len=64", "-artifact_prefix=" + sys.argv[3]], target)
atheris.Fuzz()
"""


def _compiled(source: str, library: Path, *flags: str) -> Path:
    cc = compiler()
    assert cc is not None
    command = [cc, "-shared", "-fPIC", *flags, "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=source, text=True, check=True)
    return library


def test_each_block_of_compiled_code_has_a_counter_that_the_runtime_reads(tmp_path: Path) -> None:
    nested, runtime = _compiled(NESTED, tmp_path / "nested.so", *SEES), _compiled(RUNTIME, tmp_path / "runtime.so")
    preloaded = {"LD_PRELOAD": f"{build_counter(tmp_path)}:{runtime}"}
    subprocess.run([sys.executable, "-I", "-c", LOOKS, str(nested)], env=preloaded, check=True)


def test_a_counter_without_a_runtime_behind_it_ends_the_process(tmp_path: Path) -> None:
    """Blind, it would run for hours and find nothing."""
    begin = [sys.executable, "-I", "-c", "import ctypes; ctypes.CDLL(None).guide_begin()"]
    assert subprocess.run(begin, env={"LD_PRELOAD": str(build_counter(tmp_path))}, check=False).returncode == -6


@NEEDS_ATHERIS
@pytest.mark.parametrize(("how", "is_found"), [("seeing", True), ("blind", False)])
def test_what_stands_behind_nested_conditions_is_found_by_a_guide_that_sees(
    tmp_path: Path, how: str, is_found: bool
) -> None:
    """The same inputs to begin with, the same budget, the same compiled code."""
    done = _fuzzed(tmp_path, NESTED, how)
    assert (done.returncode != 0) is is_found, done.stdout + done.stderr
    assert ("ZeroDivisionError: opened" in done.stdout) is is_found


@NEEDS_ATHERIS
def test_a_byte_read_behind_an_input_is_found(tmp_path: Path) -> None:
    """Of Python's own memory, which is mapped: nothing but the sanitizer sees it."""
    done = _fuzzed(tmp_path, "int opens(const unsigned char *data, int size) { return data[size + 2]; }", "seeing")
    assert done.returncode != 0 and "AddressSanitizer: heap-buffer-overflow" in done.stderr


def _fuzzed(folder: Path, source: str, how: str) -> subprocess.CompletedProcess[str]:
    library = _compiled(source, folder / "opens.so", *FLAGS)
    build_counter(folder)
    return subprocess.run(
        [sys.executable, "-c", FUZZES, str(library), how, f"{folder}/"], env=environment(folder), check=False,
        capture_output=True, text=True,
    )  # fmt: skip
