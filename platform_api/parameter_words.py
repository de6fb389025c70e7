"""What the parameters of routes are, in words, by their names: for the OpenAPI document.

One name means one thing on all routes. Where it cannot, `OF_PATHS` has the words of the routes that begin so.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["words_of"]

_MARKET = "A market (`INK-USDC`), or a token: its first market, by the token's symbol (`INK`) or its id."
_LISTED = "As the list of them tells it."

WORDS: Mapping[str, str] = {
    "If-Match": "The `ETag` of what was read: 409 if it was changed since. Left out: whatever it is now.",
    "Range": "One range of bytes, as `bytes=0-1023`.",
    "account_id": "An account, as `GET /v1/users/me` tells one's own.",
    "action": "What was done, as `work.published`.",
    "actor_id": "The account that did it.",
    "address_id": "Of one's own list of addresses.",
    "application_id": "An application for a licence.",
    "as": "Whose: which side of it the caller is.",
    "asset": "The name of an asset, as `USDC`.",
    "asset_id": "Of one file of the work, as the list of its assets tells it.",
    "at": "The moment that is asked about, RFC 3339. Left out: now.",
    "batch": "The number of a settlement batch. Left out: the last one that is final.",
    "category": "A code, as `GET /v1/categories` tells them.",
    "chapter_id": "A chapter of a work.",
    "code": "The verification code of a licence, as its holder shows it.",
    "creator_id": "A creator: the profile's id, not that of the account.",
    "cursor": "`next_cursor` of the answer before, for the page behind it. Left out: the first page.",
    "days": "How many days back.",
    "depth": "How many price levels of each side.",
    "device_id": _LISTED,
    "digest": "A transaction of the chain, base58.",
    "expires": "Of the signed URL: until when it holds, seconds since 1970.",
    "file_id": "A file, as the upload's end tells it.",
    "format": "`json`, or a file to keep.",
    "from": "Nothing before this moment, RFC 3339.",
    "genre": "A code, as `GET /v1/genres` tells them.",
    "intent_id": "An intent to pay.",
    "interval": "How long a candle is.",
    "key_id": _LISTED,
    "kind": "What kind of work.",
    "language": "A tag of a language, as `en` or `en-GB`.",
    "license_id": "A licence.",
    "limit": "How many a page has at most.",
    "market_id": "A market's name, as `INK-USDC`.",
    "offer_id": "An offer of a work.",
    "order_id": "The number that the exchange gave the order, as its answer told it.",
    "own": "`true`: the caller's own.",
    "payment_id": "A payment.",
    "period": "A month, as `2026-01`.",
    "price_max": "The highest price of an offer, in `asset`.",
    "price_min": "The lowest price of an offer, in `asset`.",
    "provider": "The payment provider's name.",
    "purchase_id": "A purchase.",
    "q": "What is looked for.",
    "registration_id": "A registration of a work.",
    "resource_id": "The id of what it was done to.",
    "resource_type": "What it was done to, as `work`.",
    "session_id": _LISTED,
    "sha256": "Of the file or text that was registered, 64 hexadecimal digits.",
    "signature": "Of the signed URL.",
    "since": "The first day or moment; of days the first of the thirty before `until` if left out.",
    "sort": "In which order.",
    "statement_id": "A statement of a month.",
    "status": "Those alone that stand so. Left out: all, or what the route says.",
    "symbol": "What the token is traded by: capital letters and digits.",
    "tag": "A tag as its work has it.",
    "terms_id": "Terms of a licence.",
    "territory": "A country, ISO 3166-1, two capital letters.",
    "to": "Nothing at this moment or behind it, RFC 3339.",
    "token_id": _MARKET,
    "trade_id": "The trade's number in its market: each market counts from 1.",
    "type": "Which kind.",
    "until": "The last day or moment; today, or now, if left out.",
    "upload_id": "An upload that was begun.",
    "user_id": "An account.",
    "verified": "`true`: verified creators alone; `false`: the others alone.",
    "version": "Which version. Left out: the one of now.",
    "wallet_id": _LISTED,
    "window_id": "A release window.",
    "withdrawal_id": "A withdrawal.",
    "work_id": "A work.",
}  # fmt: skip
OF_PATHS: Mapping[tuple[str, str], str] = {
    ("/v1/tokens", "token_id"): "A token, by its id or its symbol.",
    ("/v1/uploads", "number"): "The part's place in the file, from 1.",
    ("/v1/settlement", "number"): "Of a settlement batch, from 1.",
}


def words_of(path: str, name: str) -> str:
    """Of one parameter of a route. Raises KeyError: nobody has said yet what it is."""
    for (beginning, other), words in OF_PATHS.items():
        if name == other and path.startswith(beginning):
            return words
    return WORDS[name]
