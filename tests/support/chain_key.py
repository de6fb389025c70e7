"""The operator of the chains that tests begin. Its seed is no secret."""

import hashlib

from settlement.chain.keys import OperatorKey

SEED = hashlib.sha256(b"operator of the tests").digest()
OPERATOR = OperatorKey(SEED)
