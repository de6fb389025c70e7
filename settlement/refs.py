"""Refs of the money commands that settlement and the withdrawals' desk send: how they are made, and what they tell.

    dep:sui:DIGEST:INDEX    a deposit seen on the chain            memo: the row it went to, 64 hex digits
    exit:DIGEST:INDEX       the hold of a forced exit              memo: the row
    exitrest:DIGEST:INDEX   what an exit paid beyond its hold      memo: the row
    wd:ID                   a withdrawal with a document: paid once it is released

A ref names its chain event, so the same event makes the same command, however often and by whomever it is sent.
"""

from __future__ import annotations

__all__ = ["DOCUMENTED", "deposit_ref", "exit_ref", "exit_rest_ref", "is_chain_deposit", "is_chain_exit"]

DOCUMENTED = "wd:"
_DEPOSIT, _EXIT, _EXIT_REST = "dep:sui:", "exit:", "exitrest:"


def deposit_ref(digest: str, index: int) -> str:
    return f"{_DEPOSIT}{digest}:{index}"


def exit_ref(digest: str, index: int) -> str:
    return f"{_EXIT}{digest}:{index}"


def exit_rest_ref(digest: str, index: int) -> str:
    return f"{_EXIT_REST}{digest}:{index}"


def is_chain_deposit(ref: str) -> bool:
    return ref.startswith(_DEPOSIT)


def is_chain_exit(ref: str) -> bool:
    return ref.startswith((_EXIT, _EXIT_REST))

