"""What a start makes of the store: the batches that go on as objects, those that are final as places.

A final batch costs eight bytes: a year of them, one every ten seconds, is 25 MB, and would be tens of gigabytes of
objects. The follower takes each once, when it passes its cut, and it is read and decoded again then. `Stored` is fed
every event from the first on: so the transitions of all batches are checked, and what the contract skipped is counted.
"""

from __future__ import annotations

from array import array

from settlement.batch import Life, Listed, PartExecuted, Resumed, Sealed, Sent, State, Stopped, StoredEvent
from settlement.chain.port import Execution, VaultListing
from settlement.store import BatchStore

__all__ = ["Past", "Stored"]


class Past:
    """The final batches of one store. Their numbers have no gap: batch n + 1 is sealed behind batch n alone."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._first = 0
        self._places = array("q")
        self._skipping: dict[int, list[Execution]] = {}
        """Of batches of which the contract skipped a payout."""

    def add(self, life: Life, place: int) -> None:
        """The next one, whose `Sealed` the store has at `place`. Raises ValueError: it is not the next."""
        number = life.batch.number
        self._first = self._first or number
        if number != self._first + len(self._places):
            raise ValueError(f"batch {number} became final behind batch {self._first + len(self._places) - 1}")
        self._places.append(place)
        if any(execution.skipped for execution in life.executions):
            self._skipping[number] = life.executions

    def life(self, number: int) -> Life | None:
        """That batch, decoded anew; None: it is not here. Executions by which nothing was skipped are left out.

        Raises JournalCorrupt.
        """
        index = number - self._first
        if not 0 <= index < len(self._places):
            return None
        batch = self._store.sealed(self._places[index])
        return Life(batch, State.FINAL, executions=self._skipping.get(number, []))


class Stored:
    """Where the stored events fed so far leave settlement."""

    def __init__(self, store: BatchStore) -> None:
        self.lives: dict[int, Life] = {}
        """Batches that are not final, by number."""
        self.past = Past(store)
        self.listings: dict[str, VaultListing] = {}
        self.shown: dict[str, VaultListing] = {}
        """Those that the backup had when something was last sent."""
        self.halted = ""
        """Why settlement halted for no single batch's reason, and nobody has resumed it since."""
        self._places: dict[int, int] = {}
        """Of `lives`."""

    def take(self, place: int, event: StoredEvent) -> Life | None:
        """The next event and its place; the batch, whole, if this made it final.

        Raises ValueError, KeyError: no settler stores that behind what it stored before.
        """
        match event:
            case Listed():
                self.listings[event.listing.asset] = event.listing
                return None
            case Stopped():
                self.halted = event.reason
                return None
            case Sealed():
                number = event.batch.number
                self.lives[number], self._places[number] = Life(event.batch), place
            case Resumed():
                self.halted, number = "", event.number
                if not number:
                    return None
            case Sent():  # behind the backup's word, and so are the listings before it
                self.shown, number = dict(self.listings), event.number
            case _:
                number = event.number
        life = self.lives[number]
        life.take(event)
        if not isinstance(event, PartExecuted) or life.state is not State.FINAL:
            return None
        self.past.add(self.lives.pop(number), self._places.pop(number))
        return life
