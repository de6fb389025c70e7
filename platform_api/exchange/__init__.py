"""Markets, the book, orders, trades, balances."""

from platform_api.exchange.routes import ExchangeController
from platform_api.exchange.service import ExchangeService
from platform_api.kernel.context import Context

__all__ = ["CONTEXT"]

CONTEXT = Context("exchange", (ExchangeController,), ExchangeService)
