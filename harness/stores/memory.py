"""Progress in the memory of the process: the reference for all stores, and for tests."""

from __future__ import annotations

from threading import Lock
from typing import ClassVar

from harness.errors import ProgressGone, Superseded
from harness.progress import Progress


class MemoryStore:
    """Store in memory; it keeps the JSON text, not the object, to accept the same values as other stores."""

    unavailable: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._shared: dict[str, str] = {}
        self._lock = Lock()

    def claim(self, job_id: str) -> Progress:
        """Claim the job with a raised epoch."""
        with self._lock:
            progress = self.load(job_id) or Progress(job_id)
            progress.epoch += 1
            self._put(progress, progress.to_json())
            return progress

    def save(self, progress: Progress) -> int:
        """Store the progress unless the job was claimed since."""
        text = progress.to_json()
        with self._lock:
            held = self._texts.get(progress.job_id)
            if held is None or held is not progress.stored:
                stored = self.load(progress.job_id)
                if stored is None or stored.epoch != progress.epoch:
                    raise superseded(progress, None if stored is None else stored.epoch)
            self._put(progress, text)
        return len(text)

    def renew(self, progress: Progress) -> int:
        """Store the progress of an execution whose record is gone."""
        text = progress.to_json()
        with self._lock:
            stored = self.load(progress.job_id)
            if stored is not None and stored.epoch != progress.epoch:
                raise superseded(progress, stored.epoch)
            self._put(progress, text)
        return len(text)

    def load(self, job_id: str) -> Progress | None:
        """Return the stored progress, or None."""
        text = self._texts.get(job_id)
        return None if text is None else Progress.from_json(job_id, text)

    def delete(self, job_id: str) -> None:
        """Delete the progress."""
        self._texts.pop(job_id, None)

    def read(self, key: str) -> str | None:
        """Return the shared record under the key."""
        return self._shared.get(key)

    def replace(self, key: str, before: str | None, after: str) -> bool:
        """Replace the shared value unless it was changed since it was read."""
        with self._lock:
            if self._shared.get(key) != before:
                return False
            self._shared[key] = after
            return True

    def _put(self, progress: Progress, text: str) -> None:
        self._texts[progress.job_id] = progress.stored = text


def superseded(progress: Progress, owner: int | None) -> Superseded:
    """Return the error for a late save.

    :param owner: epoch of the execution that owns the job now; None if its progress was deleted.
    """
    refused = f"execution {progress.epoch} of job {progress.job_id} must not save"
    if owner is None:
        return ProgressGone(f"{refused}: its progress was deleted")
    return Superseded(f"{refused}: execution {owner} has claimed it")
