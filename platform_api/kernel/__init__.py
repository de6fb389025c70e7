"""What outlives a request: events, jobs, audit, sealed columns, and how a context joins in."""
