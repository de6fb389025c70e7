"""Random licences and licences below them against a model that compares sets: the gate refuses what the model refuses,
and of any two that stand and are not above one another, neither is exclusive where they overlap (decision 0032)."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from platform_api.errors import ApiError
from platform_api.licensing import queries
from platform_api.licensing.grants import Grant
from platform_api.licensing.measures import SCOPES, expanded
from platform_api.licensing.service import LicensingService
from tests.support.licences import owner_of_work, studio, world

__all__ = ["world"]

PLACES = ["PG", "AU", "NZ", "FJ", "WW"]


@dataclass
class Standing:
    id: UUID
    level: UUID
    parents: frozenset
    exclusive: bool
    territories: frozenset
    scope: frozenset
    first: int
    last: int

    def meets(self, other):
        return bool(
            self.territories & other.territories and self.scope & other.scope
            and self.first < other.last and other.first < self.last
        )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_gate_agrees_with_sets_and_levels_are_enough(world, seed):
    dice = random.Random(seed)
    owner_id, _, work = await owner_of_work(world)
    licensees = [(await studio(world))[0] for _ in range(3)]
    begin = datetime.now(UTC) + timedelta(days=1)
    grants = world.kernel.service(LicensingService).grants
    catalog = grants._catalog
    standing, refused = [], 0
    for _ in range(120):
        above = dice.choice([None, None, *standing])
        within = above is not None and dice.random() < 0.9
        places = sorted(above.territories & set(PLACES)) or ["PG"] if within else PLACES
        words = sorted(above.scope) if within else list(SCOPES)
        first = dice.randrange(above.first, above.last) if within else dice.randrange(60)
        last = dice.randrange(first, above.last) + 1 if within else first + dice.randrange(1, 40)
        exclusive = dice.random() < (0.6 if within and above.exclusive else 0.3)
        wanted = Standing(
            UUID(int=0), above.id if above else UUID(work["id"]),
            above.parents | {above.id} if above else frozenset(), exclusive, frozenset(), frozenset(), first, last,
        )  # fmt: skip
        territories = sorted(dice.sample(places, dice.randint(1, min(2, len(places)))))
        scope = dice.sample(words, dice.randint(1, min(2, len(words))))
        wanted.territories, wanted.scope = expanded(territories), frozenset(scope)
        beyond = above is not None and not (
            wanted.territories <= above.territories and wanted.scope <= above.scope and first >= above.first
            and last <= above.last and (above.exclusive or not exclusive)
        )  # fmt: skip
        clash = any(
            one.level == wanted.level and (one.exclusive or exclusive) and one.meets(wanted) for one in standing
        )
        async with world.kernel.database.connection() as db:
            parent = await queries.license_row(db, above.id) if above else None
        grant = Grant(
            work_id=UUID(work["id"]), licensor_id=UUID(owner_id), licensee_id=UUID(dice.choice(licensees)),
            license_type="exclusive" if exclusive else "standard", revenue_share_bps=0, asset="USDC", scale=6,
            fee_units=0, territories=territories, scope=scope, duration=f"P{last - first}D", requirements="",
            restrictions="", sublicensing=True, seats=None, starts_at=begin + timedelta(days=first), parent=parent,
        )  # fmt: skip
        try:
            async with world.kernel.database.transaction() as db:
                await catalog.lock_known(db, grant.work_id)
                wanted.id = await grants.reserve(db, grant, UUID(owner_id))
            outcome = "stands"
            standing.append(wanted)
        except ApiError as error:
            outcome = error.reason
            refused += 1
        deep = above is not None and len(above.parents) >= 15
        assert outcome == (
            "chain_too_deep" if deep else "beyond_parent" if beyond else "exclusivity_clash" if clash else "stands"
        ), (seed, wanted, above)
    for place, one in enumerate(standing):
        for two in standing[:place]:
            related = one.id in two.parents or two.id in one.parents
            assert related or not ((one.exclusive or two.exclusive) and one.meets(two)), (one, two)
    assert len(standing) > 20 and refused > 20
