"""REST, version 1: accounts and their keys, orders, reads of the projections, batches, health.

It owns the shape of the HTTP answers and the identity of people. It never writes orders or money itself: those go as
commands through a `CorePort`. It reads PostgreSQL, which may lag the core by some milliseconds, or be down.
"""
