"""Who listens to what: events and trades go from here to the connections of this process. Never waits.

A frame is made once for all who may see the same of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from platform_api.kernel.events import Event
from platform_api.live.channels import tellings
from platform_api.live.connection import Connection

__all__ = ["Hub"]


class Hub:
    def __init__(self) -> None:
        self.connections: dict[Connection, None] = {}
        self._channels: dict[str, dict[Connection, None]] = {}
        self._of_network: dict[str, int] = {}

    def add(self, connection: Connection) -> None:
        self.connections[connection] = None
        self._of_network[connection.network] = self.count_of(connection.network) + 1

    def drop(self, connection: Connection) -> None:
        """Ends its subscriptions. One that is not there is no error."""
        if connection not in self.connections:
            return
        for channel in list(connection.channels):
            self.unsubscribe(connection, channel)
        del self.connections[connection]
        left = self._of_network.pop(connection.network) - 1
        if left:
            self._of_network[connection.network] = left

    def count_of(self, network: str) -> int:
        return self._of_network.get(network, 0)

    def subscribe(self, connection: Connection, channel: str, inside: bool) -> None:
        connection.channels[channel] = inside
        self._channels.setdefault(channel, {})[connection] = None

    def unsubscribe(self, connection: Connection, channel: str) -> None:
        if connection.channels.pop(channel, None) is None:
            return
        readers = self._channels[channel]
        del readers[connection]
        if not readers:
            del self._channels[channel]

    def readers(self, channel: str) -> Iterator[Connection]:
        yield from list(self._channels.get(channel, ()))

    def has_readers(self, channel: str) -> bool:
        return channel in self._channels

    def tell(self, event: Event) -> None:
        for telling in tellings(event):
            for connection in self.readers(telling.channel):
                frame = telling.inside if connection.channels[telling.channel] else telling.everybody
                if frame is not None:
                    connection.push(frame)

    def tell_all(self, channel: str, frame: str) -> None:
        """To everybody on a channel that is public as a whole."""
        for connection in self.readers(channel):
            connection.push(frame)
