"""`byline deposit` and `byline withdraw` as a user types them, beside a running exchange."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from platform_api.identity import sui_signature as sui
from settlement.chain.keys import OperatorKey
from tests.support.exchange import ExchangeProcess, rest_of
from tests.support.waiting import HANG_S, until
from tests.unit.platform_api.test_sui_signature import Wallet


async def _byline(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "byline.cli", *arguments], capture_output=True, text=True,
        timeout=HANG_S, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip


def _wallet(seed: bytes) -> Wallet:
    wallet = Wallet(sui.ED25519)  # type: ignore[no-untyped-call]
    wallet.key = Ed25519PrivateKey.from_private_bytes(seed)
    wallet.public = wallet.key.public_key().public_bytes_raw()
    wallet.address = OperatorKey(seed).address
    return wallet


async def test_money_goes_in_and_comes_out_with_a_wallet_of_ones_own(
    new_exchange: Callable[..., ExchangeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYLINE_API_AUTH_PER_MINUTE", "0")  # each command signs in
    exchange = new_exchange("--quiet-market", "--batch-seconds", "1")
    await exchange.start()
    key = tmp_path / "wallet.key"
    where = ("--data", str(exchange.data), "--wallet", str(key))

    def has_vaults() -> bool:
        return "USDC" in (exchange.status("backoffice").get("settlement") or {}).get("coins", {})

    await until(has_vaults, what="the vaults")
    paid = await _byline("deposit", "USDC", "250.5", *where)
    assert paid.returncode == 0, paid.stdout + paid.stderr
    assert "settlement::deposit<0x" in paid.stdout and "booked" in paid.stdout
    assert key.stat().st_mode & 0o777 == 0o600
    wallet = _wallet(bytes.fromhex(key.read_text()))
    async with rest_of(exchange, wallet) as (data, _):
        [row] = await data("GET", "/v1/users/me/balances")
        assert (row["asset"], row["available"]) == ("USDC", "250.5")
        back = await _byline("withdraw", "USDC", "100", *where)
        assert back.returncode == 0, back.stdout + back.stderr
        assert f"paid 100 USDC to {wallet.address}" in back.stdout and "embedded" in back.stdout
        [out] = await data("GET", "/v1/withdrawals")
        assert out["status"] == "settled" and out["digest"] in back.stdout
    for wrong, reason in (
        ("0", "must be a decimal"), ("-5", "must be a decimal"), ("1.0000001", "at most 6 decimals"),
        ("x", "decimal above zero"),
    ):  # fmt: skip
        refused = await _byline("deposit", "USDC", wrong, *where)
        assert refused.returncode != 0 and reason in refused.stdout + refused.stderr
    for command, asset, amount, said in (
        ("withdraw", "USDC", "999", "PAYMENT_FAILED insufficient_funds: "),
        ("withdraw", "USDC", "-5", "amount"),
        ("deposit", "XYZ", "1", "VALIDATION_ERROR unknown_asset: asset: "),
    ):  # fmt: skip
        told = await _byline(command, asset, amount, *where)
        assert told.returncode == 2 and said in told.stderr and "{" not in told.stderr, told.stderr
    key.chmod(0o644)
    refused = await _byline("withdraw", "USDC", "1", *where)
    assert refused.returncode != 0 and "others may read this key" in refused.stdout + refused.stderr
    assert await exchange.stop() == 0
