"""The API's door to the core: one signed-in websocket to the gateway, made anew whenever it is lost.

Commands go out with the operator's key, answers are matched by request id, so many may be under way at once; their
number is bounded. A command that was sent and not answered is `OutcomeUnknown`, never repeated here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from byline.client import CommandError, ConnectionLost, OutcomeUnknownError, SignInFailed, TradingClient, load_key
from byline.status_file import read_status
from engine.messages.codes import RejectCode
from engine.messages.errors import OutcomeUnknown, Refused, Unavailable
from platform_api.ports import submit_taken

__all__ = ["GatewayPort"]

log = logging.getLogger(__name__)

RETRY_S = 0.25
ANSWER_S_MAX = 5.0
UNDER_WAY_MAX = 1_000
NOT_NOW = ("journal_failed", "rate_limited", "too_many_commands")
"""Nothing was executed, and later it may be."""
REJECT_WORDS = frozenset(code.word for code in RejectCode)


class GatewayPort:
    """Fulfils `platform_api.ports.CorePort`."""

    def __init__(self, data_directory: Path, host: str) -> None:
        self._data = data_directory
        self._host = host
        self._client: TradingClient | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._under_way = asyncio.Semaphore(UNDER_WAY_MAX)

    async def start(self) -> None:
        """Starts to connect; does not wait for it."""
        self._keeper = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def submit(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one command. Raises Unavailable, OutcomeUnknown, Refused."""
        client = self._client
        if client is None:
            raise Unavailable("the core is not reachable")
        if self._under_way.locked():
            raise Unavailable("too many commands are under way")
        async with self._under_way:
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    return await client.request(dict(command))
            except (TimeoutError, OutcomeUnknownError) as error:
                raise OutcomeUnknown("the core has not answered: ask for the order before sending it again") from error
            except ConnectionLost as error:
                raise Unavailable("the core is not reachable") from error
            except CommandError as error:
                if error.code in REJECT_WORDS:  # refused before the journal, for a reason of the rulebook
                    return {"event": "rejected", "reason": error.code}
                if error.code in NOT_NOW:
                    raise Unavailable(f"the core takes no command now: {error}") from error
                raise Refused(f"the gateway refused the command: {error}") from error

    async def available(self, account: str) -> dict[str, str]:
        """Asset → what the account has free now, as decimal text. Raises Unavailable, OutcomeUnknown, Refused."""
        answer = await self.submit({"op": "balances", "account": account})
        return {row["asset"]: row["available"] for row in answer["balances"]}

    async def sequence_of(self, account: str) -> int:
        """The core's sequence behind all that was sent before. Raises Unavailable, OutcomeUnknown, Refused."""
        return int((await self.submit({"op": "balances", "account": account}))["sequence"])

    async def register_key(self, key_id: str, public_key: bytes, account: str, scopes: Sequence[str]) -> None:
        """Raises Unavailable, OutcomeUnknown, Refused."""
        answer = await submit_taken(
            self,
            {
                "op": "register_key", "key": public_key.hex(), "accounts": [account], "scopes": list(scopes),
                "label": key_id,
            },
        )  # fmt: skip
        if answer.get("event") == "rejected":  # its words, as `exists`, are the rulebook's too
            raise Refused(f"the gateway refused the key: {answer['reason']}")

    async def revoke_key(self, key_id: str, public_key: bytes) -> None:
        """Raises Unavailable, OutcomeUnknown, Refused.

        The label keeps a key of somebody else, as the operator's, from being ended under its public half.
        """
        try:
            await self.submit({"op": "revoke_key", "key": public_key.hex(), "label": key_id})
        except Refused as refused:
            if not isinstance(refused.__cause__, CommandError) or refused.__cause__.code != "unknown_key":
                raise

    async def key_uses(self, taken_ns: int | None) -> dict[str, int]:
        """Raises Unavailable, OutcomeUnknown, Refused."""
        answer = await self.submit({"op": "key_uses"} | ({} if taken_ns is None else {"taken": taken_ns}))
        return {row["key"]: row["used_at"] for row in answer["keys"]}

    def status(self) -> Mapping[str, Any]:
        return {"connected": self._client is not None}

    async def _keep_connected(self) -> None:
        while True:
            try:
                status = read_status(self._data, "core")
                if status is not None and status["ready"]:
                    key = load_key((self._data / "keys" / "operator.key").read_text())
                    url = f"ws://{status.get('host', self._host)}:{status['port']}/v1/ws/trade"
                    async with await TradingClient.connect(url, key) as client:
                        self._client = client
                        log.info("event=core_connected url=%s", url)
                        async for _ in client.events():  # the operator's private events are of no use here
                            pass
            except (ConnectionLost, SignInFailed, OSError) as error:
                log.warning("event=core_unreachable error=%s", error)
            finally:
                self._client = None
            await asyncio.sleep(RETRY_S)
