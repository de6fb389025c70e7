"""LocalSui: a Sui node of one process for development and tests. It is no network.

It speaks sui.rpc.v2 (gRPC, plaintext, loopback), checks what a full node checks, and runs the exchange's contract in
the Move VM (executor movevm), or in Python where that VM's wheel is missing (executor model; the status says so).

  run     python -m settlement.chain.localsui run --data DIR --operator 0xADDRESS
          Begins a chain in DIR, or goes on with it: the log there, transactions.log, is the chain. The operator's
          address owns the contract's capabilities and a million SUI for gas. Prints its status as one JSON line when
          it listens; ends on SIGINT or SIGTERM. A kill loses nothing that was answered.
  status  python -m settlement.chain.localsui status --data DIR
  switch  python -m settlement.chain.localsui switch --data DIR NAME [VALUE]
          Makes something go wrong, in the node that runs in DIR:

%s

  replay  python -m settlement.chain.localsui replay --data DIR [--executor model]
          Runs every transaction of the log again from the first, checks its signatures, and compares what it wrote;
          the node may run meanwhile. With the other executor it shows that VM and model agree on what happened.

Try: `switch --data DIR lost_response`, send a batch, and see the settler find it by its digest.
Its exit code is 0; 1 if the node refuses the switch, or a replay differs; 2 if there is no node, or no chain, in DIR.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from engine.messages.errors import JournalCorrupt
from settlement.chain.localsui.door import SWITCHES, ask
from settlement.chain.localsui.replay import replay
from settlement.chain.localsui.server import serve


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(
        arguments.data,
        arguments.operator,
        arguments.host,
        arguments.port,
        stop=stop,
        executor=arguments.executor,
        has_door=True,
        on_ready=lambda status: print(json.dumps(status), flush=True),
    )


def _ask(data: Path, switch: str, value: str) -> int:
    try:
        reply = asyncio.run(ask(data, switch, value))
    except OSError as error:
        print(
            f"no node with fault switches runs in {data} ({error.strerror or error}). A node that `run` started has "
            "them; the exchange's own has none: `byline status` shows it",
            file=sys.stderr,
        )
        return 2
    if "error" in reply:
        print(reply["error"], file=sys.stderr)
        return 1
    print(json.dumps(reply, indent=1))
    return 0


def _progress(done: int, count: int) -> None:
    if done == count or done % 100 == 0:
        print(f"\rreplayed {done:,} of {count:,}", end="\n" if done == count else "", file=sys.stderr, flush=True)


def _replay(data: Path, executor: str) -> int:
    try:
        told = replay(data, executor, _progress if sys.stderr.isatty() else None)
    except (FileNotFoundError, JournalCorrupt) as error:
        print(f"no chain to run again: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(told), indent=1))
    return 1 if told.differences else 0


def _help() -> str:
    assert __doc__ is not None
    lines = [f"            {name:<15}{value:<16}{what}" for name, (value, what, _) in SWITCHES.items()]
    return __doc__ % "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m settlement.chain.localsui", description=_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    doings = parser.add_subparsers(dest="doing", required=True, metavar="run|status|switch|replay")
    run, status, switch, again = (doings.add_parser(name) for name in ("run", "status", "switch", "replay"))
    for each in (run, status, switch, again):
        each.add_argument("--data", type=Path, required=True, help="directory of the chain, e.g. DATA/chain")
    run.add_argument("--operator", required=True, help="Sui address that gets the capabilities and the gas")
    run.add_argument("--host", default="127.0.0.1")
    run.add_argument("--port", type=int, default=7403, help="0: a free one, told in the status")
    for each in (run, again):
        each.add_argument("--executor", choices=("auto", "movevm", "model"), default="auto")
    switch.add_argument("name", choices=list(SWITCHES))
    switch.add_argument("value", nargs="?", default="")
    arguments = parser.parse_args()
    if arguments.doing == "run":
        asyncio.run(_run(arguments))
        return 0
    if arguments.doing == "replay":
        return _replay(arguments.data, arguments.executor)
    return _ask(arguments.data, getattr(arguments, "name", ""), getattr(arguments, "value", ""))


if __name__ == "__main__":
    sys.exit(main())
