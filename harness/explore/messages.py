"""Messages in a broker in memory: a resource, and crash points around each sent or acknowledged message."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

from harness.explore.crash import current

if TYPE_CHECKING:
    from harness.explore.tables import Table

LOST = "the connection was lost before the broker's answer came"


class Messages(queue.Queue[Any]):
    """Queue of a broker in memory. A message stays until it is acknowledged, as in a real broker.

    :param name: name in the labels of crash points.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._seen: tuple[Any, ...] = ()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add a message. Crash before it: there is no message. Crash after it, or a lost answer: the message exists."""
        simulated = current()
        if simulated is not None:
            simulated.reach("before-publish", self._name)
        super().put(item, block, timeout)
        if simulated is not None:
            simulated.reach("publish", self._name, lambda: ConnectionError(LOST))

    def acknowledge(self, item: Any) -> None:
        """Remove a message. Crash before it: it is delivered again."""
        simulated = current()
        if simulated is not None:
            simulated.reach("before-ack", self._name)
        with self.mutex:
            if item in self.queue:  # a paused worker may no longer have it
                self.queue.remove(item)
        if simulated is not None:
            simulated.reach("ack", self._name)

    def waiting(self) -> tuple[Any, ...]:
        """Return the messages in order."""
        with self.mutex:
            return tuple(self.queue)

    # The methods of a resource, see harness.explore.tables.Resource.

    def changed(self) -> bool:
        """Return whether the messages have changed."""
        seen, self._seen = self._seen, self.waiting()
        return seen != self._seen

    def keep(self) -> tuple[Any, ...]:
        """Return the messages."""
        return self.waiting()

    def restore(self, kept: tuple[Any, ...]) -> None:
        """Restore the messages."""
        with self.mutex:
            self.queue.clear()
            self.queue.extend(kept)
        self._seen = kept

    def contents(self, kept: Any = None) -> dict[str, Table]:
        """Return nothing: the messages belong to the queue, not to the outcome of the job."""
        del kept
        return {}

    def close(self) -> None:
        """Do nothing: nothing is open."""
