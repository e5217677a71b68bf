"""Base of the two stores in Redis: one key per job, changed under ``WATCH`` or by a script.

A save is a script that replaces the text if this execution stored it: one round trip and no decoding. A
claim changes the text, so a script of a superseded execution changes nothing. If the script does not replace
the text, or cannot run, the save is made under ``WATCH``; see :mod:`harness.stores.scripts`.

What a crash means: ``claim``, ``save`` and ``delete`` are each one ``MULTI`` … ``EXEC``. Crash before ``EXEC`` arrives:
nothing is stored. Crash after it: everything is stored. If only the answer is lost, redis-py raises WatchError, and the
change is applied again to the record that is stored by then. ``save`` and ``renew`` store the same record once more. A
claim raises the epoch once more, and no execution has used the epoch in between. If another execution has claimed the
job since, Superseded is raised, which is correct. If redis-py cannot connect again, it raises ConnectionError. The
execution then fails; its progress is stored or not, and both states are correct.
"""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    WatchError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from harness.errors import CorruptProgress
from harness.progress import Progress
from harness.stores import shared
from harness.stores.memory import superseded

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

Change: TypeAlias = Callable[[Progress | None], Progress | None]
"""New record to store instead of the stored one; None deletes it."""

Put: TypeAlias = Callable[["Pipeline", str, Any, "str | None"], None]
"""Function that writes a change: pipeline, key, old value of the key, new text."""


class Refused(ResponseError):
    """Error of Redis that refuses a command temporarily and has no class in redis-py."""


UNAVAILABLE: tuple[type[Exception], ...] = (
    RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError, MasterDownError, Refused,
)  # fmt: skip
"""Temporary errors of Redis: it is unreachable, is loading its data, is out of memory, or has become a replica."""

REFUSALS = re.compile(
    r"(?:Command # .* caused error: )?(?:NOREPLICAS|MISCONF|BUSY|CLUSTERDOWN|TRYAGAIN)\b", re.DOTALL
)
"""Errors that become :class:`Refused`: too few replicas, a failed snapshot, a running script, a cluster in repair."""


class WatchedStore(ABC):
    """Store in Redis.

    A subclass defines the key of a job, and how progress is read and written.

    :param connection: connection to Redis.
    """

    unavailable: ClassVar[tuple[type[Exception], ...]] = UNAVAILABLE
    _shared_prefix = shared.PREFIX

    def __init__(self, connection: Redis) -> None:
        self._connection = connection

    def claim(self, job_id: str) -> Progress:
        """Claim the job with a raised epoch."""
        progress, _ = self._change(job_id, lambda stored: next_claim(stored, job_id))
        assert progress is not None  # noqa: S101 - next_claim() makes one
        return progress

    def save(self, progress: Progress) -> int:
        """Store the progress unless the job was claimed since."""

        def saved(stored: Progress | None) -> Progress:
            if stored is None:
                raise superseded(progress, None)
            return _owned(progress, stored)

        text = None if progress.stored is None else progress.to_json()
        if text is not None and self._replace(progress.job_id, progress.stored or "", text):
            progress.stored = text
            return len(text)
        return len(self._change(progress.job_id, saved)[1] or "")

    def renew(self, progress: Progress) -> int:
        """Store the progress of an execution whose record is gone."""
        return self._renew(progress, self._put)

    def load(self, job_id: str) -> Progress | None:
        """Return the stored progress, or None."""
        return self._progress(job_id, self._held(self._connection, job_id))

    def delete(self, job_id: str) -> None:
        """Delete the progress."""
        self._change(job_id, lambda _: None)

    def read(self, key: str) -> str | None:
        """Return the shared record under the key."""
        return shared.read(self._connection, key, prefix=self._shared_prefix)

    def replace(self, key: str, before: str | None, after: str) -> bool:
        """Replace the shared value unless it was changed since it was read."""
        return shared.replace(self._connection, key, before, after, prefix=self._shared_prefix)

    @abstractmethod
    def _key(self, job_id: str) -> str:
        """Return the key that is watched."""

    @abstractmethod
    def _get(self, connection: Redis, key: str) -> Any:
        """Return the value of the key; None if it is missing."""

    @abstractmethod
    def _text(self, job_id: str, held: Any) -> str | bytes | None:
        """Return the progress in the value of the key, as JSON."""

    @abstractmethod
    def _put(self, pipeline: Pipeline, key: str, held: Any, text: str | None) -> None:
        """Queue the command that replaces the progress by *text*, or deletes it."""

    @abstractmethod
    def _replace(self, job_id: str, expected: str, text: str) -> bool:
        """Store *text* in one round trip if *expected* is stored; return True if it was certainly stored.

        After False the result is unknown: the caller then makes the change under ``WATCH``.
        """

    def _held(self, connection: Redis, job_id: str) -> Any:
        """Return the value of a job's key.

        :raises CorruptProgress: if another program stored another type there.
        """
        try:
            return self._get(connection, self._key(job_id))
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            raise CorruptProgress(
                f"the Redis key {self._key(job_id)} has another type than the progress of a job; it was not changed"
            ) from error

    def _progress(self, job_id: str, held: Any) -> Progress | None:
        text = None if held is None else self._text(job_id, held)
        return None if text is None else Progress.from_json(job_id, text)

    def _renew(self, progress: Progress, put: Put) -> int:
        def restored(stored: Progress | None) -> Progress:
            return progress if stored is None else _owned(progress, stored)

        return len(self._change(progress.job_id, restored, put)[1] or "")

    def _change(
        self, job_id: str, change: Change, put: Put | None = None
    ) -> tuple[Progress | None, str | None]:
        key = self._key(job_id)
        with self._connection.pipeline() as pipeline:
            while True:
                try:
                    pipeline.watch(key)
                    held = self._held(pipeline, job_id)
                    progress = change(self._progress(job_id, held))
                    text = None if progress is None else progress.to_json()
                    pipeline.multi()
                    (put or self._put)(pipeline, key, held, text)
                    pipeline.execute()
                except WatchError:
                    # The key was changed in between, or the answer was lost: read again.
                    continue
                except ResponseError as error:
                    if REFUSALS.match(str(error)):
                        raise Refused(str(error)) from error
                    raise
                if progress is not None:
                    progress.stored = text
                return progress, text


def next_claim(stored: Progress | None, job_id: str) -> Progress:
    """Return the progress of the execution that claims a job, based on the stored text."""
    progress = stored or Progress(job_id)
    progress.epoch += 1
    progress.claimed = secrets.token_hex(4)
    return progress


def _owned(progress: Progress, stored: Progress) -> Progress:
    """Return the progress to save, if the stored progress has the same claim.

    Epochs restart at 1 after a record was deleted. The random mark of the claim is different then.
    """
    if (stored.epoch, stored.claimed) != (progress.epoch, progress.claimed):
        raise superseded(progress, stored.epoch)
    return progress
