"""Markets, the book, orders, trades, balances."""
