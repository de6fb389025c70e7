"""Order entry: sessions, wire protocols, API keys, the sequencer and the websocket server in front of it."""
