"""`python -m bench`: list the benches, or run one and print its table.

A bench's own options are what its `run` takes beside `smoke` and `seed`; the text of an annotation
`Annotated[int | None, "text"]` is the option's help. A bench whose commands are a mix says so in `MIX`.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_type_hints

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from bench import harness

console = Console()
DEFAULT_SEED = 20260801
STANDARD_OUT = Path("-")


def names() -> list[str]:
    """The benches there are, by name."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def table(content: dict[str, Any], rows: list[harness.Row]) -> Table:
    """The rows as a table that names machine, commit and what was left out."""
    grid = Table(
        title=f"{content['bench']} · seed {content['seed']} · commit {content['commit']}",
        caption=f"{content['machine']}\nbuilt with {content['build']}\nleft out: {content['left_out']}",
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
            "[red]missed[/]" if not row.ok else "[green]ok[/]" if row.must is not None else "[dim]checked[/]",
        )
    return grid


def execute(name: str, module: ModuleType, json_out: Path | None, smoke: bool, seed: int, own: dict[str, Any]) -> None:
    """Run one bench, print its table, write its file.

    Raises:
        typer.Exit: with status 1, a row missed what it must reach.
    """
    rows: list[harness.Row] = module.run(smoke, seed, **own)
    left_out: str = module.LEFT_OUT
    if smoke:
        rows, left_out = harness.unjudged(rows), f"smoke size: too small to be held to what must be reached; {left_out}"
    content = harness.report(name, seed, left_out, rows, getattr(module, "MIX", ""))
    if json_out == STANDARD_OUT:
        Console(stderr=True).print(table(content, rows))
        if not smoke:
            harness.write_json(harness.results_path(content), content)
        print(json.dumps(content, indent=1))
    else:
        console.print(table(content, rows))
        if json_out is not None:
            harness.write_json(json_out, content)
    if not all(row.ok for row in rows):
        raise typer.Exit(1)


def own_options(run: Callable[..., Any]) -> list[inspect.Parameter]:
    """What `run` takes beside `smoke` and `seed`, as options of the command line."""
    hints = get_type_hints(run, include_extras=True)
    options = []
    for parameter in inspect.signature(run).parameters.values():
        if parameter.name in ("smoke", "seed"):
            continue
        kind, text = get_args(hints[parameter.name])
        options.append(
            parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=Annotated[kind, typer.Option(help=text)])
        )
    return options


def command(name: str) -> Any:
    """The command line of one bench."""
    module = importlib.import_module(f"bench.bench_{name}")

    def run(
        json_out: Annotated[
            Path | None,
            typer.Option("--json", help="Write the rows to this file as well; no name: to bench/results and stdout."),
        ] = None,
        smoke: Annotated[
            bool, typer.Option("--smoke", help="A small size, in seconds: correctness, not speed.")
        ] = False,
        seed: Annotated[int, typer.Option(help="Seed of the workload.")] = DEFAULT_SEED,
        **own: Any,
    ) -> None:
        execute(name, module, json_out, smoke, seed, own)

    own = own_options(module.run)
    shared = [p for p in inspect.signature(run, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]
    run.__signature__ = inspect.Signature([*shared, *own])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*shared, *own)}
    single = typer.Typer(add_completion=False)
    single.command(
        name, cls=Bench, help=module.__doc__, epilog=f"Example: python -m bench {name} --json {name}.json. "
        "Exit 1 if a row missed what it must reach.",
    )(run)  # fmt: skip
    return typer.main.get_command(single)


class Bench(TyperCommand):
    """`--json` may stand without a file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for at in reversed(range(len(args))):
            if args[at] == "--json" and (at + 1 == len(args) or args[at + 1].startswith("-")):
                args.insert(at + 1, str(STANDARD_OUT))
        return super().parse_args(ctx, args)


class Benches(TyperGroup):
    """Every `bench_NAME.py` is a command; only the one that is asked for is imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        return names()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return command(cmd_name) if cmd_name in names() else None


app = typer.Typer(cls=Benches, add_completion=False)


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Run one bench. Every result is checked against a reference before its row is written."""
    if context.invoked_subcommand is None:
        console.print("benches: " + ", ".join(names()) + "\nrun one with: python -m bench NAME")


if __name__ == "__main__":
    app()
