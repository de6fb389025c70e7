"""A signer of its own process over a sealed key file: `python -m settlement.chain.signer_process --key PATH`.

Speaks the protocol of `settlement.chain.signer`. The key file is opened with BYLINE_KEY_PASSPHRASE, or with the file
that BYLINE_KEY_FILE names. It is what an adapter of a key management service looks like: replace `sign` by its call.
Ends when its standard input ends.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.messages.errors import SettingsInvalid
from settlement.chain.keys import OperatorKey
from settlement.chain.sealed_key import KeyLock


def answer(key: OperatorKey, line: str) -> dict[str, Any]:
    """The answer to one line."""
    try:
        request = json.loads(line)
        if request["op"] == "address":
            return {"address": key.address}
        if request["op"] == "sign":
            transaction = base64.b64decode(request["transaction"], validate=True)
            return {"signature": base64.b64encode(key.sign(transaction)).decode()}
        return {"error": f"unknown op {request['op']!r}"}
    except (ValueError, KeyError, TypeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", type=Path, required=True, help="the sealed key file")
    path = parser.parse_args().key
    file = os.environ.get("BYLINE_KEY_FILE", "")
    try:
        key = OperatorKey.load(path, KeyLock(os.environ.get("BYLINE_KEY_PASSPHRASE", ""), Path(file) if file else None))
    except (SettingsInvalid, OSError) as error:
        print(f"signer: {error}", file=sys.stderr)
        return 2
    for line in sys.stdin:
        print(json.dumps(answer(key, line)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
