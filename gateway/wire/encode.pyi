from typing_extensions import Buffer

from gateway.names import Names
from gateway.orders import OpenOrders

def event_text(slot: Buffer, names: Names, orders: OpenOrders, own: int = 0xFFFFFFFF) -> bytes | None: ...
