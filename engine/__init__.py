"""The exchange core: commands in, events out. No clock, no I/O, no randomness, no floats."""
