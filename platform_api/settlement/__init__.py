"""Batches: what was settled on chain, and with which digest."""
