"""Recorded markets, replayed through the order entry of a running exchange as if many traders were typing."""
