"""People: sign-in with a Sui wallet, sessions, API keys."""
