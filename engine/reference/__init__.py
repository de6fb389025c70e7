"""The plain-Python twin of the core: the clearest version of the rules, never optimised.

    core.py      ReferenceCore: the door, with the API of engine.core.Core
    model.py     what exists: assets, markets, accounts, orders, ids, refs; reading records, writing events
    orders.py    place, cancel, replace, mass_cancel and matching
    money.py     deposit, withdraw, transfer, post, void, refs and what a tick does
    listing.py   asset, market, account
    digest.py    the state hash of docs/state-hash.md, computed anew from everything that exists

It takes the same binary records and answers the same bytes. Worst case: everything is linear in what it looks at.
"""

from engine.reference.core import ReferenceCore

__all__ = ["ReferenceCore"]
