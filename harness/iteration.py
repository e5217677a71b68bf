"""Pattern 2: a job that does one thing to many items, as Shopify's ``job-iteration``.

::

    class Price(IterationJob):
        def build_enumerator(self, import_id, *, cursor):
            return records(session, Row.of_import(import_id), cursor=cursor)

        def each_iteration(self, row, import_id):
            price(row)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from harness import events
from harness.cursor import ATOMIC, freeze
from harness.enumerators import Enumerator
from harness.errors import JobDefinitionError
from harness.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP = "each_iteration"
"""The name of the only step that an iteration job has."""


class IterationJob(Job, abstract=True):
    """A job over an enumerator; see the module for an example.

    The cursor is saved only after ``each_iteration`` returned, so it means "done up to and including here" (I6).
    """

    build_enumerator: Callable[..., Iterable[tuple[Any, Any]] | None]
    """Define it as ``build_enumerator(self, …, *, cursor)``, with the job's arguments: return what comes after *cursor*
    as pairs ``(item, cursor)``, or None if there is nothing to do. Called once in every execution."""

    each_iteration: Callable[..., object]
    """Define it as ``each_iteration(self, item, …)``, with the job's arguments: do the work on one item."""

    def around_iterate(self) -> AbstractContextManager[Any]:
        """Return a context manager around the work of each execution, ``build_enumerator`` included.

        The place for what lives as long as an execution: a session, a connection.
        """
        return nullcontext()

    @classmethod
    def _check_definition(cls) -> None:
        super()._check_definition()
        name = cls.__name__
        if not hasattr(cls, "each_iteration"):
            raise JobDefinitionError(f"{name} must define each_iteration(self, item, …)")
        if not hasattr(cls, "build_enumerator"):
            raise JobDefinitionError(f"{name} must define build_enumerator(self, …, *, cursor)")
        if hasattr(cls, "perform"):
            raise JobDefinitionError(
                f"{name} is an iteration job and cannot define perform; use each_iteration"
            )
        kind = inspect.Parameter
        cursor = inspect.signature(cls.build_enumerator).parameters.get("cursor")
        if cursor is None or cursor.kind is not kind.KEYWORD_ONLY:
            raise JobDefinitionError(
                f"{name}.build_enumerator must take cursor as a keyword: (self, …, *, cursor)"
            )
        if "cursor" in inspect.signature(cls.each_iteration).parameters:
            raise JobDefinitionError(
                f"{name}.each_iteration: the argument name 'cursor' is reserved; rename it"
            )

    def run_pattern(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Do the work of one execution."""
        with self.around_iterate():
            found = self.build_enumerator(*args, cursor=freeze(self.execution.cursor), **kwargs)
            if found is None:
                events.emit(events.NothingToIterate(self.execution.job_id, type(self).__name__))
                return
            self._run_enumerator(self._enumerator(found), args, kwargs)

    def _run_enumerator(
        self, enumerator: Enumerator[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        execution = self.execution
        if execution.total is None:
            # Asked once and kept: what is done may have left the collection when the job resumes.
            execution.total = enumerator.size
        execution.step = STEP
        pairs = iter(enumerator)
        try:
            self._iterate(pairs, args, kwargs, batched=enumerator.batched)
        finally:
            # A generator's own cleanup must not wait for the garbage collector.
            close = getattr(pairs, "close", None)
            if close is not None:
                close()
        execution.completed = [STEP]

    def _iterate(
        self,
        pairs: Iterator[tuple[Any, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        batched: bool,
    ) -> None:
        execution, clock, each, subscribers = (
            self.execution, self.execution.clock, self.each_iteration, events.subscribers,
        )  # fmt: skip
        for item, cursor in pairs:
            # Frozen before the work: a cursor that cannot be stored is refused while nothing is done yet, and
            # one that the enumerator goes on changing stays as it was.
            position = cursor if type(cursor) in ATOMIC else freeze(cursor)
            each(item, *args, **kwargs)
            execution.cursor = position
            execution.items += len(item) if batched else 1
            if subscribers:
                name = type(self).__name__
                events.emit(events.ItemDone(execution.job_id, name, position, execution.items))
            if execution.items >= execution.items_at or clock() >= execution.look_at:
                execution.attend()

    def _enumerator(self, found: Any) -> Enumerator[Any]:
        if isinstance(found, Enumerator):
            return found
        if isinstance(found, Iterable) and not isinstance(found, str | bytes):
            return Enumerator(found)
        raise JobDefinitionError(
            f"{type(self).__name__}.build_enumerator must return an iterable of (item, cursor) pairs or None, "
            f"found {type(found).__name__}"
        )
