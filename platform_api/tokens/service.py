"""Tokens: the parts put together."""

from __future__ import annotations

from platform_api.kernel.context import Kernel
from platform_api.tokens.desk import TokenDesk
from platform_api.tokens.registry import Registry
from platform_api.tokens.symbols import Symbols
from platform_api.tokens.views import TokenViews

__all__ = ["TokenService"]


class TokenService:
    """`symbols`, `registry` and `views` answer requests; `desk` sends commands to the core."""

    def __init__(self, kernel: Kernel) -> None:
        self.desk = TokenDesk(kernel)
        self.symbols = Symbols(kernel)
        self.registry = Registry(kernel, self.symbols, self.desk)
        self.views = TokenViews(kernel)
