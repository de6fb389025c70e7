"""The plain-Python twin of the core: the clearest version of the rules, never optimised.

    core.py        ReferenceCore: the door, with the API of engine.core.Core
    model.py       what exists: assets, markets, accounts, orders, ids, refs; reading records, writing events
    place.py       place: its checks, and where an accepted order goes
    amend.py       cancel, mass_cancel, replace
    orders.py      the life of an order: hold, pair, book, wait, refresh, end, remembered ids
    matching.py    an order against the book; self-trade prevention; fok; the fills limit
    trade.py       one trade: fees, holds, balances
    stops.py       which stops a trade meets, and running them
    bands.py       price bands and the pause
    auction.py     phase, uncross, the indicative price
    safeguards.py  kill, rearm, cancel_after, poison
    timers.py      what falls due, and tick
    money.py       deposit, withdraw, transfer, post, void, refs
    listing.py     asset, market, account
    noticed.py     entities and tables that notice their own changes
    digest.py      the state hash of docs/state-hash.md, from everything there is, and kept up to date
    audit.py       every invariant of the rulebook, section 5

It takes the same binary records and answers the same bytes. Worst case: everything is linear in what it looks at, but a
cascade of stops, which looks at all waiting stops of the market for each that runs.
"""

from engine.reference.core import ReferenceCore

__all__ = ["ReferenceCore"]
