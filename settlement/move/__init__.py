"""The Move package of the exchange, its probe, the test coin, and their bytecode."""
