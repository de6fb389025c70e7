"""PostgreSQL: migrations in `migrations/*.sql`, the projector of the event log, and what it encodes and derives."""
