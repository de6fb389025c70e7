"""What the examples of the OpenAPI document hold, by the name of a field: one value for each word of the domain.

A field's own `examples` come before these, and so do its enum, default and format. Where one name means two things,
`Type.field` comes before `field`. Values fit together: one token, one account, one work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["BY_NAME"]

ID = "0197e7a2-5b7c-7c3e-9f0a-3f3c2b1a0d4e"
AT = "2026-01-02T03:04:05.678901Z"
DIGEST = "9f86d081" * 8
ADDRESS = "0x" + "5a1c90d7" * 8
TRANSACTION = "8Rv5mQb2wYc7Zt3uXh6KpLnJd4GfSaE9"

_TIMES = dict.fromkeys(
    (
        "timestamp", "time", "at", "not_before", "pay_before", "confirm_by", "until", "since", "effective_from",
        "refundable_until",
    ),
    AT,
)  # fmt: skip
_PRICES = dict.fromkeys(
    (
        "price", "last_price", "start_price", "best_price", "average_price", "worst_price", "open", "high", "low",
        "close",
    ),
    "12.4",
) | {"stop_price": "12.1", "tick_size": "0.01", "max_price": "10000", "price_min": "1", "price_max": "100"}  # fmt: skip
_SIZES = {
    "size": "5", "quantity": "5", "filled": "2", "leaves": "3", "display_size": "1", "lot_size": "0.01",
    "min_size": "0.01", "max_size": "1000000", "volume": "1520.5", "total_supply": "1000000", "sale_size": "100000",
    "circulating_supply": "100000",
}  # fmt: skip
_AMOUNTS = {
    "amount": "12.5", "fee": "0.062", "notional": "62", "budget": "62", "quote_volume": "18854.2", "value": "62",
    "volume_24h": "18854.2", "held": "62", "total": "250", "available": "188", "bought": "62",
    "sold": "24.8", "cost": "37.2", "unrealised": "1.5", "realised": "0.4", "gross": "60", "platform_fee": "9",
    "net": "51", "earned": "51", "opening": "0", "closing": "31", "payable": "31", "paid": "20", "reversed": "0",
    "refunded": "0", "gas_mist": "1250000",
    "bids": [["12.4", "3"], ["12.39", "10"]], "asks": [["12.41", "5"]], "cash": [["USDC", "188"]],
    "Portfolio.totals": [["USDC", "250"]], "changes": [["INK", "5"], ["USDC", "-62.062"]],
}  # fmt: skip
_WORDS = {
    "code": "VALIDATION_ERROR", "asset": "USDC", "assets": "USDC", "quote_asset": "USDC", "symbol": "QUILL",
    "market": "INK-USDC", "side": "buy", "type": "limit", "tif": "gtc", "status": "live", "aggressor": "buy",
    "liquidity": "maker", "phase": "continuous", "batch_status": "final", "genre": "drama", "genres": "drama",
    "category": "novel", "language": "en", "territory": "PG", "territories": "PG", "tag": "island", "tags": "island",
    "kind": "trade", "role": "author", "roles": "creator", "permissions": "works.write", "scopes": "read",
    "scheme": "ed25519", "provider": "embedded", "revenue_kind": "content_purchase", "content_type": "image/png",
    "executor": "validators", "chain": "sui:embedded", "function": "deposit", "reason": "not_available",
    "action": "work.published", "resource_type": "work", "subject_type": "work", "section": "about",
    "period": "2026-01", "date": "2026-01-02", "outcome": "succeeded", "place": "vault", "path": "AAECAw==",
    "links": "AAECAw==", "Proof.salt": "AAECAw==", "Market.id": "INK-USDC", "Market.token_id": "INK",
    "Term.name": "Drama", "Device.name": "Firefox on Linux", "Device.kind": "web", "Health.version": "0.1.0",
    "DepositArgument.name": "coin", "DepositArgument.type": "object",
}  # fmt: skip
_TEXTS = {
    "title": "The Salt Road", "work_title": "The Salt Road", "name": "Ink", "display_name": "Mara Lindqvist",
    "creator_name": "Mara Lindqvist", "author": "Mara Lindqvist", "username": "mara_lindqvist",
    "description": "A novel in instalments, set on an island.", "bio": "Writes novels in instalments.",
    "body": "The boat came back without him. " * 8, "change_note": "A new ending.", "q": "salt road",
    "requirements": "Name the author in the opening titles.", "restrictions": "No advertising.",
    "purpose": "A feature film.", "statement": "I wrote this work myself.", "label": "trading bot",
    "note": "For the cover.", "memo": "Sale of The Salt Road", "message": "Sign in to Byline.",
    "email": "mara@example.org", "user_agent": "Mozilla/5.0", "ip_address": "192.0.2.7",
    "covers": "The title, the description and the text of each chapter.",
    "proves": "Who signed in with this wallet had exactly this content at the time of registration.",
    "problem": "The chain is away; it is tried again.", "failure": "The card was declined.",
    "error": "The node did not answer.", "waiting": "The address is too new.",
}  # fmt: skip
_REFERENCES = {
    "id": ID, "request_id": ID[:-1] + "f", "account": ID, "waits_for": ID, "waiting_for": ID, "file_ids": ID,
    "portfolio_work_ids": ID, "signature": DIGEST, "sha256": DIGEST, "hash": DIGEST, "root": DIGEST, "salt": DIGEST,
    "public_key": DIGEST, "address": ADDRESS, "wallets": ADDRESS, "owner": ADDRESS, "vault": ADDRESS,
    "package": ADDRESS, "coin_type": f"{ADDRESS}::usdc::USDC", "type_arguments": f"{ADDRESS}::usdc::USDC",
    "digest": TRANSACTION, "digests": TRANSACTION, "ref": "faucet-2026", "provider_ref": "pi_3Pq7",
    "DepositArgument.value": ADDRESS,
    "order_id": "86660", "trade_id": "3", "market_id": "INK-USDC", "token_id": "INK", "Proof.account": f"user:{ID}",
    "Placed.status": "accepted", "Order.status": "open", "Order.reason": None,
    "client_secret": "pi_3Pq7_secret_k2", "csrf_token": "c3Jm" * 8, "access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
    "refresh_token": "cnQx" * 8, "batch": "12", "number": "12", "batch_path": "/v1/settlement/batches/12",
    "proof_path": "/v1/users/me/proof?batch=12", "avatar_url": f"/v1/files/{ID}", "cover_url": f"/v1/files/{ID}",
    "url": f"/v1/files/{ID}/content", "check_url": f"https://example.org/v1/copyrights/{DIGEST}",
    "If-Match": '"3"', "Range": "bytes=0-1023",
}  # fmt: skip
BY_NAME: Mapping[str, Any] = {
    **_TIMES, **_PRICES, **_SIZES, **_AMOUNTS, **_WORDS, **_TEXTS, **_REFERENCES,
    "next_cursor": None, "cursor": None, "limit": 20, "version": 3,
}  # fmt: skip
