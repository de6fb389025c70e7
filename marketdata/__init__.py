"""Market data: follows the event log and fans out books, trades and tickers over websockets."""
