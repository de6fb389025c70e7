"""SUI for gas on the embedded chain: an address whose key everybody knows, as test networks have a faucet.

Whoever has another key (a user who pays in or leaves by himself) sends himself gas from it. It holds nothing else, and
exists on the embedded chain alone.
"""

from __future__ import annotations

from settlement.chain.encoding import address_bytes, blake2b256
from settlement.chain.keys import OperatorKey

__all__ = ["FAUCET_ADDRESS", "FAUCET_KEY"]

FAUCET_KEY = OperatorKey(blake2b256(b"the faucet of the embedded chain: everybody has this key"))
FAUCET_ADDRESS = address_bytes(FAUCET_KEY.address)
