"""LocalSui, the embedded node: real transactions, signatures and Move bytecode; no network, no consensus.

contract      operations of the settlement contract; the Python model
movevm        the same operations in the Move VM of the sui-sandbox wheel
state         objects, rows, records; what a restart applies
interpreter   programmable transactions
packages      code and signatures of the functions, as the server tells them
node          the rules of a Sui node
server        gRPC
replay        the whole log run again, and compared
"""
