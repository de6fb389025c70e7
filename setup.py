"""Cython extensions only; all metadata is in pyproject.toml."""

import os
import platform
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
ALL_PACKAGES = "engine gateway persistence marketdata settlement bench"
PACKAGES = os.environ.get("BYLINE_PACKAGES", ALL_PACKAGES).split()  # a part, while working on that part
QUIET = os.environ.get("BYLINE_PACKAGES") is not None
"""Whoever builds a part knows what; a first build tells each module that Cython translates."""
DEBUG = os.environ.get("BYLINE_DEBUG_BUILD") == "1"

DIRECTIVES = {
    "language_level": 3,
    "wraparound": False,
    "cdivision": True,
    "embedsignature": True,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
}


def machine_args() -> list[str]:
    """x86-64-v3 (AVX2, BMI2) where the machine that builds has it and BYLINE_PORTABLE is not 1.

    Byline is built where it runs (docs/decisions/0011-core-speed.md). CRC32C is dispatched at run time all the same.
    """
    flags = Path("/proc/cpuinfo")
    if os.environ.get("BYLINE_PORTABLE") == "1" or platform.machine() != "x86_64" or not flags.exists():
        return []
    have = set(flags.read_text().split())
    return ["-march=x86-64-v3"] if {"avx2", "bmi1", "bmi2", "fma", "f16c", "movbe", "abm"} <= have else []


COMPILE_ARGS = ["-O0", "-g"] if DEBUG else ["-O3", "-fno-strict-aliasing", "-fno-semantic-interposition"]
COMPILE_ARGS += machine_args()
COMPILE_ARGS += [] if DEBUG else ["-w"]  # the C is Cython's: its warnings say nothing to whoever builds it


class TellingBuild(build_ext):
    """Says what it compiles, with its number: a first build takes minutes, and -q silences everything else."""

    def build_extensions(self) -> None:
        self.told = 0
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        self.told += 1
        target = Path(self.get_ext_fullpath(ext.name))
        newest = max(Path(path).stat().st_mtime for path in (*ext.sources, *ext.depends))
        if self.force or not target.exists() or target.stat().st_mtime < newest:
            print(f"byline: compiling {self.told} of {len(self.extensions)}: {ext.name}", flush=True)
        super().build_extension(ext)


def extension(source: Path) -> Extension:
    name = ".".join(source.relative_to(ROOT).with_suffix("").parts)
    return Extension(
        name,
        [str(source.relative_to(ROOT))],
        include_dirs=[".", str(source.parent.relative_to(ROOT)), numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=COMPILE_ARGS,
        extra_link_args=["-pthread"],
    )


setup(
    ext_modules=cythonize(
        [extension(source) for package in PACKAGES for source in sorted((ROOT / package).rglob("*.pyx"))],
        compiler_directives=DIRECTIVES,
        build_dir="build/cython",
        nthreads=0,
        quiet=QUIET,
    ),
    cmdclass={"build_ext": TellingBuild},
)
