"""What full text searches share."""

from __future__ import annotations

__all__ = ["as_beginning"]


def as_beginning(query: str) -> str:
    """SQL of the tsquery that the SQL `query` is, its last word taken as the beginning of one.

    Only where it ends in a word: a phrase that is negated ends in a bracket, and is left as it is.
    """
    return f"CASE WHEN right({query}::text, 1) = '''' THEN ({query}::text || ':*')::tsquery ELSE {query} END"
