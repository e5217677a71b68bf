"""Items that a progress record names: those that were set aside, and those at work beyond the cursor.

Where several items are at work at a time, the saved cursor is that of the last item before which everything is done.
The record lists the items that were read after it, up to the last one that is done. So a job that resumes does again
what was not done, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness import cursor as cursors
from harness.boundary import texts
from harness.boundary.decoding import shown
from harness.errors import CorruptProgress

QUARANTINE_BYTES, QUARANTINE_ERROR_BYTES = 56 * 1024, 800
"""Size limits of the errors of all quarantined items, and of one.

They are less than half of a record's size, so that foreign texts never make a progress too large.
"""


@dataclass(frozen=True)
class Quarantined:
    """An item that was set aside.

    :ivar cursor: of the item. :ivar failures: how often it failed. :ivar error: with what, the last time.
    """

    cursor: Any
    failures: int
    error: str

    def to_data(self, limit: int = QUARANTINE_ERROR_BYTES) -> list[Any]:
        """Return the stored form, with the error cut to *limit* bytes."""
        return [cursors.encode(self.cursor), self.failures, texts.bounded(self.error, limit)]

    @classmethod
    def from_data(cls, job_id: str, data: Any) -> Quarantined:
        """Read the stored form.

        :raises CorruptProgress: if it is not that.
        """
        if not (isinstance(data, list) and list(map(type, data[1:])) == [int, str]):
            raise corrupt(job_id, "quarantined", data)
        return cls(cursors.decode(data[0]), data[1], data[2])


@dataclass(frozen=True)
class Beyond:
    """An item that was read beyond the cursor.

    :ivar cursor: of the item. :ivar done: whether it is done.
    :ivar proof: that the cursor means this item, for enumerators whose cursor does not say; None for no proof.
    """

    cursor: Any
    done: bool
    proof: Any = None

    def to_data(self) -> list[Any]:
        """Return the stored form."""
        data = [cursors.encode(self.cursor), self.done]
        return data if self.proof is None else [*data, cursors.encode(self.proof, "proof")]

    @classmethod
    def from_data(cls, job_id: str, data: Any) -> Beyond:
        """Read the stored form.

        :raises CorruptProgress: if it is not that.
        """
        if not (isinstance(data, list) and 2 <= len(data) <= 3 and type(data[1]) is bool):
            raise corrupt(job_id, "beyond", data)
        return cls(cursors.decode(data[0]), data[1], cursors.decode(data[2]) if len(data) == 3 else None)


def corrupt(job_id: str, name: str, value: Any) -> CorruptProgress:
    """Return the error of a field that holds what no release writes."""
    return CorruptProgress(f"the progress of job {job_id} has {name} = {shown(value)}; it was not changed")
