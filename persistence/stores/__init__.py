"""Stores beside the journal: all of them can be rebuilt from it."""
