"""The core of an exchange as a process, for the tests here."""

from __future__ import annotations

from tests.support.core_process import core

__all__ = ["core"]
