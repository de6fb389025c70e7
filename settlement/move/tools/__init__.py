"""For developers who change Move sources."""
