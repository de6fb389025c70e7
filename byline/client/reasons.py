"""What each refusal and each cancel means, and what to do: the words of `rejected`, `error` and `canceled`.

docs/protocol/reasons.md is generated from here (`python -m byline.record_document`), and a test holds the tables to the
exchange's own lists. REJECTED stands in the order in which the exchange checks: the first that fails is told.
"""

from __future__ import annotations

__all__ = ["CANCELED", "ERRORS", "REJECTED", "meaning_of"]

REJECTED: dict[str, tuple[str, str]] = {
    "bad_ref": ("the ref was used with other content", "use a fresh ref"),
    "unknown_account": ("the exchange has no such account", "take one that `signed_in` lists"),
    "duplicate": (
        "the new id of a replace, or the ref, is known",
        "use a fresh one; a place is answered by a `duplicate` event",
    ),
    "poisoned": ("this client id was poisoned", "use a fresh client id"),
    "unknown_market": ("no market has this name", "ask `directory`"),
    "unknown_asset": ("no asset has this name", "ask `directory`"),
    "frozen": ("the account is frozen", "ask the operator"),
    "cancel_only": ("the account may only cancel", "ask the operator"),
    "killed": ("`kill` is in force", "send `rearm` when you want to trade again"),
    "unknown_order": ("no open order of this account has this id", "it has filled or was canceled: `resolve` tells"),
    "phase": (
        "the market takes no such order in its phase",
        "wait for `phase_changed`; auctions take resting limits and stops",
    ),
    "bad_value": (
        "both ids are given, a replace gives nothing to change, or a value is out of its range",
        "correct the command",
    ),
    "exists": ("it is there already, with these or other terms", "nothing, or choose another name"),
    "bad_type": (
        "no order type, or post_only, oco_with or a budget with a type that has none",
        "see `place` in the rulebook",
    ),
    "bad_tif": (
        "this type has no such time in force; post_only and oco_with go with gtc and gtd",
        "see `place` in the rulebook",
    ),
    "bad_price": (
        "missing, not on a tick, not above 0, above the market's `max_price`, or given where the type has none",
        "round to `tick`; `GET /v1/markets` tells `max_price`",
    ),
    "bad_size": (
        "missing, no whole number of lots, below `min_size`, above `max_size`, or a budget where there is none",
        "round to `lot`; `GET /v1/markets` tells both bounds",
    ),
    "bad_display": (
        "display_size must be at least `min_size`, below size and at least a 1000th of it, and goes with limit gtc "
        "and gtd",
        "correct it or leave it out",
    ),
    "bad_stop": (
        "stop_price is missing, off the tick, out of range, or given where the type has none; or the stop has "
        "triggered",
        "correct it",
    ),
    "bad_amount": ("an amount is no positive whole number of the asset's units", "`directory` tells the scale"),
    "bad_expiry": (
        "gtd needs an expires_at later than now, in ns; other orders have none; `at` must lie in the future",
        "correct it",
    ),
    "band": (
        "the price lies outside the market's entry band around its reference price",
        "come nearer to the last trade; the operator tells how near",
    ),
    "too_many_orders": ("the account has as many open and waiting orders as it may", "cancel some"),
    "bad_oco": (
        "the partner of the pair is not open, is paired already, or is of another market, side or kind",
        "see oco_with in the rulebook",
    ),
    "insufficient_funds": (
        "what is available does not cover the hold: price × size and the fee of a buy, the size of a sell",
        "ask `balances`; lower the size or cancel something",
    ),
    "would_cross": ("a post_only order would have met the other side", "reprice behind the best opposite price"),
    "no_liquidity": ("a market order found nobody on the other side", "try later, or rest a limit order"),
    "crossed": ("the market cannot be opened with a crossed book", "the operator uncrosses it"),
    "expired": ("`not_after` had passed", "send it anew if it is still wanted"),
    "bad_account": ("the movement may not touch this account", "correct the legs"),
    "bad_legs": ("no legs, or legs that do not add up", "correct the legs"),
    "too_large": ("a balance would leave its range", "move less"),
    "busy": ("a table of the engine is full: orders, poisons, ids of renamed orders", "cancel something, or try later"),
    "malformed": ("the record is no command", "compare it with the protocol"),
}
"""By `reason` of `rejected`: what it means, and what to do."""

ERRORS: dict[str, tuple[str, str]] = {
    "bad_json": (
        "the frame is no JSON that this protocol has: invalid, a doubled key, NaN, a fraction as a number",
        "write decimals as strings",
    ),
    "malformed": ("`field` breaks `rule`", "correct that field"),
    "bad_rid": ("rid is a whole number from 0 to 2^63-1 or 1–32 plain characters", "correct it"),
    "unknown_op": ("no op has this name, or it cannot come as a record", "see Commands"),
    "bad_frame": ("a binary frame is not whole records: nothing of it was executed", "send whole records"),
    "too_many_commands": ("more than a frame may hold", "send more frames"),
    "not_signed_in": ("this op needs a sign-in", "sign in first"),
    "already_signed_in": ("a session signs in once", "open another connection for another key"),
    "forbidden": (
        "the key's scopes, accounts or markets do not cover this",
        "`whoami` tells what the key may; the operator registers keys",
    ),
    "expired_key": ("the key's time is over", "have another registered"),
    "bad_signature": (
        "no registered key made this over environment, epoch and nonce of this connection; which keys are is not told",
        "sign the newest `hello`; have the key registered if it was not, or was revoked",
    ),
    "nonce_used": ("a nonce serves one attempt", "sign the newest `hello`"),
    "unknown_account": ("the exchange has no such account", "take one that `signed_in` lists"),
    "unknown_market": ("no market has this name or index", "ask `directory`"),
    "bad_price": ("no positive whole number of ticks", "round to `tick` of `directory`"),
    "bad_size": ("no positive whole number of lots", "round to `lot` of `directory`"),
    "bad_display": ("no positive whole number of lots", "round to `lot`"),
    "bad_stop": ("no positive whole number of ticks", "round to `tick`"),
    "bad_amount": ("no positive whole number of units", "`directory` tells the scale"),
    "bad_address": (
        "sign-in: the key may not come from this network; withdraw: not the account's own address",
        "use the registered one",
    ),
    "bad_value": ("a value is out of its range", "`rule` says which range"),
    "crossed": ("a quote's bid reaches its ask", "quote a bid below the ask"),
    "poisoned": ("this quote id was poisoned", "use a fresh quote id"),
    "exists": ("the key is registered", "nothing; to change it, revoke it and register another"),
    "unknown_key": ("`revoke_key`: no such key is registered under this label", "nothing"),
    "registry_failed": ("the disk did not take the registration, and it does not hold", "try again; tell the operator"),
    "rate_limited": ("the tier's bucket is empty", "wait `retry_after_ms`; cancels always pass"),
    "collar": (
        "the limit price lies outside the key's collar around the reference price, or there is no limit price",
        "come nearer to the last trade",
    ),
    "protection": ("the key's protection tripped and its orders were canceled", "look, then `reset_protection`"),
    "busy": ("a queue is nearly full", "try again in a moment; cancels still pass"),
    "cancel_only": ("the disk is full: only what removes risk is taken", "cancel, or wait"),
    "journal_failed": (
        "the journal has failed; commands without an ack may be lost",
        "ask `resolve` after the restart",
    ),
    "unavailable": ("what this question needs is not there at present", "try again"),
    "internal": ("a fault of the exchange; the command was not executed", "connect again and `resume`"),
}
"""By `code` of `error`, text and binary: nothing was journaled and nothing executed."""

CANCELED: dict[str, str] = {
    "user": "`cancel`",
    "mass": "`mass_cancel`",
    "ioc": "the rest of an ioc order",
    "fok": "it could not be filled whole",
    "market": "the book could not fill the rest of a market order",
    "stp": "it would have traded with its own account or group",
    "expired": "its `expires_at` passed",
    "oco": "its partner traded or triggered",
    "killed": "`kill`",
    "frozen": "the account was frozen",
    "closed": "the market was closed",
    "session": "its session or key ended, a `cancel_after` fell due, or the key's protection tripped",
    "band": "it came to the edge of the execution band",
    "budget": "the budget is spent",
    "funds": "the account had no more money for it",
    "replaced": "a replace to a total that is filled already",
    "fills_limit": "one command fills so many times at most",
}
"""By `reason` of `canceled`: why."""


def meaning_of(reason: str) -> str:
    """What a reason of `rejected` means, and what to do; for one that this library does not know, that."""
    meaning, action = REJECTED.get(reason, ("a rule that this library does not know", "see docs/protocol/reasons.md"))
    return f"{meaning} ({action})"
