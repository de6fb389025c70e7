"""PostgreSQL: schema migrations and the projector that fills it from the events."""
