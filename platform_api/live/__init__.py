"""One event socket for web pages: works, creators, the market, and what concerns oneself."""

from platform_api.kernel.context import Context
from platform_api.live.routes import SocketController
from platform_api.live.service import LiveService

__all__ = ["CONTEXT"]

CONTEXT = Context("live", (SocketController,), LiveService)
