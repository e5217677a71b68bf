"""Items in a progress record: quarantined ones, and those read beyond the cursor.

With several items at a time, the saved cursor belongs to the last item up to which everything is done. The record lists
the items that were read after the cursor, up to the last done item. So a resumed job repeats only unfinished items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness import cursor as cursors
from harness.boundary import texts
from harness.boundary.decoding import shown
from harness.errors import CorruptProgress

QUARANTINE_BYTES, QUARANTINE_ERROR_BYTES = 56 * 1024, 800
"""Size limits of the errors of all quarantined items, and of one item.

They are less than half of a record's size, so that error texts never make a record too large.
"""


@dataclass(frozen=True)
class Quarantined:
    """Item that was set aside.

    :ivar cursor: cursor of the item. :ivar failures: number of its failures. :ivar error: its last error.
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

        :raises CorruptProgress: if no release writes such data.
        """
        if not (isinstance(data, list) and list(map(type, data[1:])) == [int, str]):
            raise corrupt(job_id, "quarantined", data)
        return cls(cursors.decode(data[0]), data[1], data[2])


@dataclass(frozen=True)
class Beyond:
    """Item that was read beyond the cursor.

    :ivar cursor: cursor of the item. :ivar done: whether it is done. :ivar proof: proof that the cursor means
        this item, for enumerators whose cursors are positions; None for no proof.
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

        :raises CorruptProgress: if no release writes such data.
        """
        if not (isinstance(data, list) and 2 <= len(data) <= 3 and type(data[1]) is bool):
            raise corrupt(job_id, "beyond", data)
        return cls(cursors.decode(data[0]), data[1], cursors.decode(data[2]) if len(data) == 3 else None)


def corrupt(job_id: str, name: str, value: Any) -> CorruptProgress:
    """Return the error for a field with a value that no release writes."""
    return CorruptProgress(f"the progress of job {job_id} has {name} = {shown(value)}; it was not changed")


def error_limit(number: int) -> int:
    """Return the size limit of an error's text, in bytes, for a number of quarantined items."""
    return min(QUARANTINE_ERROR_BYTES, QUARANTINE_BYTES // max(1, number))
