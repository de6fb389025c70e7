"""Proofs for the API, from the settling process. Fulfils `platform_api.ports.ProofPort`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from platform_api.ports import NoProof
from settlement.proof_desk import ProofClient, ProofProblem

__all__ = ["DeskProofs"]


class DeskProofs:
    """The proof desk of one data directory."""

    def __init__(self, data_directory: Path) -> None:
        self._desk = ProofClient(data_directory)

    async def prove(self, account: str, batch: int | None) -> Sequence[Mapping[str, Any]]:
        try:
            return [msgspec.to_builtins(proof) for proof in await self._desk.prove(account, batch)]
        except ProofProblem as problem:
            raise NoProof(problem.reason) from problem
