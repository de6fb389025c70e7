"""The command line's ways to roles and to the audit trail, on a real PostgreSQL."""

import pytest

from byline import people
from byline.settings import load_settings
from engine.messages.errors import SettingsInvalid, Unavailable
from platform_api.kernel.audit import seal_entries
from tests.unit.platform_api.test_ethereum_signature import EthereumWallet
from tests.unit.platform_api.test_sui_signature import Wallet


async def test_role_is_granted_by_id_name_or_wallet_and_audited(world):
    wallet, other = Wallet(0), EthereumWallet()
    session, bearer = await world.sign_in(wallet)
    await world.data("PATCH", "/v1/users/me", headers=bearer, json={"username": "Boss"})
    await world.step_up(wallet, bearer)
    await world.data("POST", "/v1/users/me/wallets", headers=bearer,
                     json=await world.proof(other, "link_wallet", bearer))  # fmt: skip
    account = session["account_id"]
    for who, role in ((account, "super_admin"), ("boss", "operator"), (wallet.address, "moderator"),
                      (other.address, "creator")):  # fmt: skip
        text = await people._grant(world.dsn, who, role, [], False)
        assert text == f"account {account} has the role {role}"
    assert "left as it was" in await people._grant(world.dsn, "boss", "operator", [], False)
    shown = await world.data("GET", "/v1/auth/session", headers=bearer)
    assert shown["roles"] == ["creator", "member", "moderator", "operator", "super_admin"]
    entries = await world.data("GET", f"/v1/admin/audit-logs?resource_id={account}&limit=4", headers=bearer)
    assert [entry["action"] for entry in entries] == ["user.role_granted"] * 4
    assert {entry["actor_id"] for entry in entries} == {None}
    assert "has lost the role" in await people._grant(world.dsn, "boss", "super_admin", [], True)
    for who, role, departments in (("nobody", "admin", []), (account, "king", []), (account, "admin", ["kitchen"])):
        with pytest.raises(SettingsInvalid):
            await people._grant(world.dsn, who, role, departments, False)


async def test_audit_trail_is_verified_and_a_missing_exchange_is_said(world, tmp_path):
    async with world.kernel.database.transaction() as db:
        while await seal_entries(db):
            pass
    sound, text = await people._verify(world.dsn)
    assert sound and "0 not in the chain" in text
    with pytest.raises(Unavailable, match="byline up"):
        people.verify_audit(load_settings({}, data_directory=tmp_path))
    assert "key 2 added" in people.rotate_column_keys(load_settings({}, data_directory=tmp_path))
