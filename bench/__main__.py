"""`python -m bench`: list the benches, or run one and print its table."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench import harness

app = typer.Typer(add_completion=False, help=__doc__)
console = Console()


def names() -> list[str]:
    """The benches there are, by name."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def table(content: dict[str, object], rows: list[harness.Row]) -> Table:
    """The rows as a table that names machine, commit and what was left out."""
    grid = Table(
        title=f"{content['bench']} · seed {content['seed']} · commit {content['commit']}",
        caption=f"{content['machine']}\nleft out: {content['left_out']}",
        caption_justify="left",
    )
    for column in ("case", "metric"):
        grid.add_column(column)
    for column in ("value", "baseline", "ratio", "must"):
        grid.add_column(column, justify="right")
    grid.add_column("")
    for row in rows:
        grid.add_row(
            row.case,
            row.metric,
            f"{row.value:,.4g} {row.unit}" if row.value < 10_000 else f"{row.value:,.0f} {row.unit}",
            "" if row.baseline is None else f"{row.baseline:,.4g}",
            "" if row.ratio is None else f"{row.ratio:,.2f}×",
            "" if row.must is None else f"{row.must:,.4g}",
            "[green]ok[/]" if row.ok else "[red]missed[/]",
        )
    return grid


@app.command(
    epilog="Example: python -m bench engine --json engine.json. Exit 1 if a row missed what it must reach."
)
def main(
    name: Annotated[str | None, typer.Argument(help="Which bench; without it the list is printed.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file as well.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="A small size, in seconds: correctness, not speed.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the workload.")] = 20260801,
) -> None:
    """Run one bench. Every result is checked against a reference before its row is written."""
    if name is None:
        console.print("benches: " + ", ".join(names()) + "\nrun one with: python -m bench NAME")
        return
    if name not in names():
        raise typer.BadParameter(f"no bench is called {name!r}; there are: {', '.join(names())}")
    module = importlib.import_module(f"bench.bench_{name}")
    rows: list[harness.Row] = module.run(smoke, seed)
    content = harness.report(name, seed, getattr(module, "LEFT_OUT", ""), rows)
    console.print(table(content, rows))
    if json_out is not None:
        harness.write_json(json_out, content)
    if not smoke and not all(row.ok for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
