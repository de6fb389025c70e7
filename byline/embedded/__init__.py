"""Servers that the exchange brings along, started by its own supervisor: no root, no service, no network."""
