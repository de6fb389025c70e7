"""Markets, the book, orders, trades, balances; and what an account has, had and moved."""

from platform_api.exchange.account_routes import AccountController
from platform_api.exchange.accounts import AccountService
from platform_api.exchange.routes import ExchangeController
from platform_api.exchange.service import ExchangeService
from platform_api.kernel.context import Context

__all__ = ["ACCOUNTS", "CONTEXT"]

CONTEXT = Context("exchange", (ExchangeController,), ExchangeService)
ACCOUNTS = Context("accounts", (AccountController,), AccountService)
