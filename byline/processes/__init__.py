"""The processes of one exchange, a file each: the one place that chooses the parts and wires them.

    clients ─ws─▶ core ─▶ journal ─▶ backup ─▶ object store
                   │
                   └─▶ event log ─┬─▶ marketdata, marketdata_b … ─ws─▶ readers
                                  ├─▶ relay ─▶ NATS ─▶ market data on other hosts
                                  └─▶ backoffice: projector ─▶ postgres ─▶ api ─▶ people
                                                  settler ─▶ chain

    core          recovery ▸ sequencer ▸ gateway; its snapshots are in `snapshots`, what clients sign in `epoch`
    marketdata    event log ▸ books, trades, candles ▸ fan-out
    backoffice    event log ▸ projector, settler, desks; `office_ports` is what these take of other packages
    api           REST; its commands go to the core as anybody's do
    postgres      the embedded database server
    chain         the embedded node; `operator_key` signs, `chain_access` opens any chain
    traders       simulated traders
    relay         event log ▸ NATS
    backup        journal ▸ object store

Each of these files has `run(settings, status, stop)`, which builds the process, tells its status and returns once
`stop` is set. `entry` runs one by its name (`names`) and decides the exit status; `body` is what all of them do alike,
`neighbours` and `event_source` are how one finds the others. A process loads its own parts alone: the core never
imports REST.
"""
