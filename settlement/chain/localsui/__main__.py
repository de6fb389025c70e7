"""python -m settlement.chain.localsui --data DIR --operator ADDRESS [--host H] [--port N] [--executor E]

E is auto, movevm or model.

Prints one JSON line when it listens; ends on SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from pathlib import Path

from settlement.chain.localsui.server import serve


async def _main(arguments: argparse.Namespace) -> None:
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
        on_ready=lambda status: print(json.dumps(status), flush=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the chain, e.g. DATA/chain")
    parser.add_argument("--operator", required=True, help="Sui address that gets the capabilities and the gas")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7403)
    parser.add_argument("--executor", choices=("auto", "movevm", "model"), default="auto")
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
