"""Settlement: nets each cut of the event log and has it executed on Sui, once, in order.

netting            pure: events → double-entry ledger → entries per chain row, and the liability trees
verify             a batch and proofs against a node; publication: the journal without names
batch              the life of a batch as one table, and its durable store
settler            follows the events, drives one batch at a time through a ChainPort
chain/             the port, the pysui adapter, and LocalSui, the embedded node
move/              the Move package and its compiled bytecode
"""
