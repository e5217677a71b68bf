"""Values of one context: a thread or an asyncio task, and the threads that it starts.

A context variable alone is not enough, because a thread starts without the values of its starter, and a job
may work in its own threads. Such a thread gets the value of the process, if there is exactly one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar("T")


class Scoped(Generic[T]):
    """Variable whose value belongs to a context.

    :param name: name of the context variable.
    """

    def __init__(self, name: str) -> None:
        self._own: ContextVar[tuple[object, T] | None] = ContextVar(name, default=None)
        self._all: dict[object, T] = {}

    def get(self) -> T | None:
        """Return the value of this context; if it has none, the only value in the process, if there is one."""
        if not self._all:
            return None
        own = self._own.get()
        if own is not None:
            return own[1]
        values = list(self._all.values())
        # With several values, none is known to be this thread's.
        return values[0] if len(values) == 1 else None

    def own(self) -> T | None:
        """Return the value that was set in this context."""
        own = self._own.get()
        return None if own is None else own[1]

    @contextmanager
    def holding(self, value: T) -> Iterator[None]:
        """Set the value in this context until the block ends."""
        outer, key = self._own.get(), object()
        if outer is not None:
            self._all.pop(outer[0], None)
        self._all[key] = value
        self._own.set((key, value))
        try:
            yield
        finally:
            self._own.set(outer)  # no reset(): a fixture may end in another context than the one it began in
            del self._all[key]
            if outer is not None:
                self._all[outer[0]] = outer[1]
