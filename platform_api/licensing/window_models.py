"""Bodies of the routes of release windows and availability."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from platform_api.licensing.models import Moment, Territories, TerritoryCode
from platform_api.texts import Amount
from platform_api.works.models import AssetName

__all__ = ["PAID_TYPES", "WorkAvailability", "BulkRequest", "Opening", "Window", "WindowPatch", "WindowRequest"]

WindowType = Literal["festival", "cinema", "collector", "pvod", "ppv", "tvod", "svod", "avod"]
WindowStatus = Literal["scheduled", "open", "closed", "cancelled"]
PAID_TYPES = ("collector", "pvod", "ppv", "tvod")
"""Kinds that are bought one by one, and so have a price."""
WORKS_MAX = 200


class WindowRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """From `starts_at` until before `ends_at`, or without end. `price`: needed for collector, pvod, ppv and tvod.

    `exclusive`: no window of any other type at the same time in these territories; under an exclusive licence alone.
    `license_id`: the right to distribute of whoever does not own the work.
    """

    work_id: UUID
    window_type: WindowType
    territories: Territories
    starts_at: Moment
    ends_at: Annotated[Moment | None, Meta(examples=[None])] = None
    price: Annotated[Amount | None, Meta(examples=["4.99"])] = None
    asset: AssetName = "USDC"
    exclusive: bool = False
    license_id: Annotated[UUID | None, Meta(examples=[None])] = None


class WindowPatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Absent fields stay. Of an open window only its end and its price."""

    territories: Territories | UnsetType = UNSET
    starts_at: Moment | UnsetType = UNSET
    ends_at: Annotated[Moment | None | UnsetType, Meta(examples=["2027-12-01T00:00:00Z"])] = UNSET
    price: Annotated[Amount | UnsetType, Meta(examples=["4.99"])] = UNSET
    exclusive: bool | UnsetType = UNSET


class Window(Struct, frozen=True):
    id: str
    work_id: str
    window_type: WindowType
    territories: Territories
    starts_at: str
    ends_at: str | None
    price: Annotated[Amount | None, Meta(examples=["4.99"])]
    asset: AssetName | None
    exclusive: bool
    status: WindowStatus
    version: int


class Opening(Struct, frozen=True):
    """A way in which the work can be had."""

    window_id: str
    window_type: WindowType
    ends_at: str | None
    price: Annotated[Amount | None, Meta(examples=["4.99"])]
    asset: AssetName | None
    exclusive: bool


class WorkAvailability(Struct, frozen=True):
    """`next_at`: when the next window of the territory opens, if one is planned."""

    work_id: str
    territory: TerritoryCode
    at: str
    available: bool
    openings: list[Opening]
    next_at: str | None


class BulkRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`at`: absent for now."""

    work_ids: Annotated[list[UUID], Meta(min_length=1, max_length=WORKS_MAX)]
    territory: TerritoryCode
    at: Annotated[Moment | None, Meta(examples=[None])] = None
