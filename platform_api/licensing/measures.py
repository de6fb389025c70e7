"""What a right extends over: territories, scope, duration, each as written and as sets that can be compared.

Territories are ISO 3166-1 codes, or WW for all of them. A row keeps what was written, the version of the code list, and
the expanded set; the set is a multirange of numbers, so that PostgreSQL itself can say whether two rights overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from platform_api.errors import ApiError, ErrorCode

__all__ = [
    "SCOPES", "TERRITORIES", "TERRITORY_LIST", "WORLD", "check_duration", "expanded", "scope_set",
    "territory_set", "tidy",
]  # fmt: skip

WORLD = "WW"
TERRITORY_LIST = "ISO 3166-1:2020"
TERRITORIES = frozenset(
    [
        "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ", "BA",
        "BB", "BD", "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS", "BT", "BV",
        "BW", "BY", "BZ", "CA", "CC", "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN", "CO", "CR", "CU",
        "CV", "CW", "CX", "CY", "CZ", "DE", "DJ", "DK", "DM", "DO", "DZ", "EC", "EE", "EG", "EH", "ER", "ES",
        "ET", "FI", "FJ", "FK", "FM", "FO", "FR", "GA", "GB", "GD", "GE", "GF", "GG", "GH", "GI", "GL", "GM",
        "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK", "HM", "HN", "HR", "HT", "HU", "ID", "IE",
        "IL", "IM", "IN", "IO", "IQ", "IR", "IS", "IT", "JE", "JM", "JO", "JP", "KE", "KG", "KH", "KI", "KM",
        "KN", "KP", "KR", "KW", "KY", "KZ", "LA", "LB", "LC", "LI", "LK", "LR", "LS", "LT", "LU", "LV", "LY",
        "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK", "ML", "MM", "MN", "MO", "MP", "MQ", "MR", "MS", "MT",
        "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NC", "NE", "NF", "NG", "NI", "NL", "NO", "NP", "NR", "NU",
        "NZ", "OM", "PA", "PE", "PF", "PG", "PH", "PK", "PL", "PM", "PN", "PR", "PS", "PT", "PW", "PY", "QA",
        "RE", "RO", "RS", "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ", "SK", "SL", "SM",
        "SN", "SO", "SR", "SS", "ST", "SV", "SX", "SY", "SZ", "TC", "TD", "TF", "TG", "TH", "TJ", "TK", "TL",
        "TM", "TN", "TO", "TR", "TT", "TV", "TW", "TZ", "UA", "UG", "UM", "US", "UY", "UZ", "VA", "VC", "VE",
        "VG", "VI", "VN", "VU", "WF", "WS", "YE", "YT", "ZA", "ZM", "ZW",
    ]
)
SCOPES = ("adapt", "merchandise", "distribute", "translate", "audio", "perform")
_DURATION = re.compile(
    r"P(?=[0-9T])(?:([0-9]{1,2})Y)?(?:([0-9]{1,3})M)?(?:([0-9]{1,3})W)?(?:([0-9]{1,4})D)?"
    r"(?:T(?=[0-9])(?:([0-9]{1,4})H)?(?:([0-9]{1,4})M)?)?"
)


def tidy(territories: Iterable[str], field: str = "territories") -> list[str]:
    """Each code once, in order; WW swallows all others. Raises ApiError VALIDATION_ERROR `unknown_territory`."""
    found = set(territories)
    strange = sorted(found - TERRITORIES - {WORLD})
    if strange:
        message = f"{field}: {strange[0]} is no code of {TERRITORY_LIST}"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="unknown_territory", field=field)
    return [WORLD] if WORLD in found else sorted(found)


def expanded(territories: Iterable[str]) -> frozenset[str]:
    """The codes meant, WW being all of this version's list."""
    found = frozenset(territories)
    return TERRITORIES if WORLD in found else found


def territory_set(territories: Iterable[str]) -> str:
    """The text of an int4multirange: each code is the number of its two letters."""
    return _multirange((ord(code[0]) - 65) * 26 + ord(code[1]) - 65 for code in expanded(territories))


def scope_set(scope: Iterable[str]) -> str:
    """The text of an int4multirange: each scope is its place in SCOPES."""
    return _multirange(map(SCOPES.index, scope))


def check_duration(text: str) -> None:
    """Raises ApiError VALIDATION_ERROR `bad_duration` unless it is an ISO 8601 duration above zero, without seconds."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(int(part) for part in match.groups() if part):
        message = "duration: must be an ISO 8601 duration of years, months, weeks, days, hours or minutes, as P1Y"
        raise ApiError(ErrorCode.VALIDATION_ERROR, message, reason="bad_duration", field="duration")


def _multirange(numbers: Iterable[int]) -> str:
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    return "{" + ",".join(f"[{low},{high})" for low, high in ranges) + "}"
