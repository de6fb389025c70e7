"""Who signs: a key of this process, or another program that alone has the key.

The other program is any command: an adapter of a key management service, a hardware module, or `python -m
settlement.chain.signer_process`. It is started once and spoken to in JSON lines on its standard input and output:

    → {"op": "address"}                           ← {"address": "0x…"}
    → {"op": "sign", "transaction": BASE64}       ← {"signature": BASE64}      flag, 64 bytes, public key, as Sui has it
                                                  ← {"error": "words"}         a definite no

What is signed is blake2b256(00 00 00 | transaction). Every signature is verified against the transaction and the
address before it is used: a signer that answers with another key's, or of other bytes, is refused. The environment of
the program is that of this process; its standard error is passed through.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shlex
from typing import Any, Protocol

from engine.messages.errors import Refused, SettingsInvalid, Unavailable
from settlement.chain.keys import BadSignature, signer_of

__all__ = ["ExternalSigner", "Signer"]


class Signer(Protocol):
    """`address` is the Sui address whose signatures these are."""

    @property
    def address(self) -> str: ...

    async def sign_transaction(self, transaction: bytes) -> bytes:
        """The Sui signature of transaction bytes. Raises Unavailable (later), Refused (never)."""


class ExternalSigner:
    """One command. Build it with `start`."""

    def __init__(self, command: str, timeout_s: float) -> None:
        self._command, self._timeout_s = command, timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._address = ""

    @classmethod
    async def start(cls, command: str, *, timeout_s: float = 10.0) -> ExternalSigner:
        """Start the command and ask whose key it has.

        Raises:
            SettingsInvalid: the command cannot be started, or does not speak as above.
            Unavailable: it did not answer in time.
        """
        signer = cls(command, timeout_s)
        answer = await signer._ask({"op": "address"})
        address = answer.get("address")
        if not isinstance(address, str) or not address.startswith("0x"):
            await signer.close()
            raise SettingsInvalid(f"signer {command!r} names no address: {sorted(answer)}")
        signer._address = address
        return signer

    @property
    def address(self) -> str:
        return self._address

    async def sign_transaction(self, transaction: bytes) -> bytes:
        answer = await self._ask({"op": "sign", "transaction": base64.b64encode(transaction).decode()})
        if "error" in answer:
            raise Refused(f"the signer refuses: {answer['error']}")
        try:
            signature = base64.b64decode(str(answer["signature"]), validate=True)
            signed_by = signer_of(signature, transaction)
        except (KeyError, ValueError) as error:
            kind = "no signature of these bytes" if isinstance(error, BadSignature) else "no signature"
            raise Refused(f"the signer answers with {kind}") from error
        if signed_by != self._address:
            raise Refused(f"the signer has signed with the key of {signed_by}, not of {self._address}")
        return signature

    async def close(self) -> None:
        """End the program."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One question at a time. A program that died, hangs or was left alone in the middle of an answer is ended,
        and started again by the next one."""
        async with self._lock:
            process = await self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                async with asyncio.timeout(self._timeout_s):
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    await process.stdin.drain()
                    line = await process.stdout.readline()
            except BaseException as error:
                await self.close()  # also when nobody waits any more: the answer in the pipe is not the next question's
                if isinstance(error, TimeoutError | OSError):
                    raise Unavailable(f"the signer does not answer within {self._timeout_s:g} s") from error
                raise
            try:
                answer = json.loads(line)
            except ValueError:
                answer = None
            if not isinstance(answer, dict):
                await self.close()
                raise Unavailable("the signer has ended, or answers with something else than a JSON object")
            return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *shlex.split(self._command), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
            except (OSError, ValueError) as error:
                raise SettingsInvalid(f"signer {self._command!r} cannot be started: {error}") from error
        return self._process
