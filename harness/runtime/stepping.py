"""Step in progress: its cursor, and the transactions of its work."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from harness.cursor import ATOMIC, freeze, successor
from harness.errors import JobDefinitionError, UsageError
from harness.runtime.loops import EitherWay, is_async_session, is_awaitable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from harness.context import Context


class Step:
    """Step in progress, passed to the step's function.

    ``items`` is not keyword-only, because CPython has no fast path for methods with keyword-only arguments.
    """

    __slots__ = ("_before", "_execution", "_live", "_progress", "name", "resumed")

    def __init__(self, name: str, execution: Context, *, resumed: bool) -> None:
        self.name = name
        self.resumed = resumed
        """True if an earlier execution began this step; it then resumes at :attr:`cursor`."""
        self._execution = execution
        self._progress = execution.progress
        self._before = execution.progress.cursor
        self._live = freeze(execution.progress.cursor)

    @property
    def cursor(self) -> Any:
        """Position in the step: first its ``start``, later the cursor that was set."""
        cursor = self._progress.cursor
        # The job gets a copy that it may change in place, never the object that is saved.
        return cursor if type(cursor) in ATOMIC else self._live

    @property
    def advanced(self) -> bool:
        """True if the cursor moved in this execution, also by a change in place."""
        return bool(freeze(self.cursor) != self._before)

    @property
    def description(self) -> str:
        """Position of the step, as text."""
        return f"at {self.name!r}, cursor {self.cursor!r}"

    @property
    def total(self) -> int | None:
        """Number of items of the job, for progress bars; set it when it is known."""
        return self._progress.total

    @total.setter
    def total(self, number: int) -> None:
        """Set the total number of items."""
        self._progress.total = number

    def set(self, cursor: Any, items: int = 1) -> None:
        """Record that everything up to *cursor* is done, then checkpoint.

        Call it after the effect, never before: a crash between the two repeats the effect. In the other order a crash
        would lose the effect.

        :param items: number of items done, for counts and progress bars. :raises CursorError: if the cursor
            would not come back equal.
        """
        progress = self._progress
        progress.cursor = cursor if type(cursor) in ATOMIC else freeze(cursor)
        self._live = cursor
        progress.done = done = progress.done + items
        if done >= progress.check_at:
            self._execution.run_checkpoint()

    def advance(self, from_: Any = None, items: int = 1) -> None:
        """Move the cursor to the successor of *from_* (by default of the cursor), then checkpoint.

        :raises UnadvanceableCursor: if there is no successor, as for None, the cursor without a ``start``.
        """
        progress = self._progress
        cursor = progress.cursor if from_ is None else from_
        if type(cursor) is not int:
            self.set(successor(self.cursor if from_ is None else from_), items=items)
            return
        progress.cursor = cursor + 1
        progress.done = done = progress.done + items
        if done >= progress.check_at:
            self._execution.run_checkpoint()

    def checkpoint(self) -> None:
        """Let the job stop here, with the current cursor, including changes in place.

        :raises Interrupt: if the job has to stop here.
        """
        progress = self._progress
        if type(progress.cursor) not in ATOMIC:
            progress.cursor = freeze(self._live)
        if progress.done >= progress.check_at:
            self._execution.run_checkpoint()

    def transaction(self) -> EitherWay:
        """Do work in a transaction of the job's ``session``, and set the cursor in it.

        ::

            with step.transaction() as session:
                price(session, row)
                step.set(row.id)

        The end of the block commits; under ``with_transaction()`` the cursor is in the same commit. The checkpoint
        comes after the commit. If the block raises, its work and the cursor are rolled back. With an ``AsyncSession``
        it is ``async with step.transaction() as session:``.
        """
        return EitherWay(self._transaction, self._transaction_async)

    # Crash before the commit: nothing is stored. Crash after it: under with_transaction() both work and cursor are
    # stored; otherwise only the work is stored, and it is repeated. Lost answer: under with_transaction() the database
    # is asked.

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        execution, session = self._execution, self._session()
        if is_async_session(session):
            raise UsageError(
                f"{type(execution.job).__name__}.session is an AsyncSession; write async with step.transaction()"
            )
        progress = self._progress
        before = progress.cursor, progress.done
        execution.holding = True
        try:
            yield session
            self._refuse_no_move(before)
            if execution.transactional:
                execution.commit(always=True)
            else:
                session.commit()
        except BaseException:
            self._go_back(before)
            session.rollback()
            raise
        finally:
            execution.holding = False
        if progress.done >= progress.check_at:
            execution.run_checkpoint()

    @asynccontextmanager
    async def _transaction_async(self) -> AsyncIterator[Any]:
        execution, session, progress = self._execution, self._session(), self._progress
        before = progress.cursor, progress.done
        execution.holding = True
        try:
            yield session
            self._refuse_no_move(before)
            if execution.transactional:
                await execution.commit_async(always=True)
            elif is_awaitable(done := session.commit()):
                await done
        except BaseException:
            self._go_back(before)
            if is_awaitable(done := session.rollback()):
                await done
            raise
        finally:
            execution.holding = False
        if progress.done >= progress.check_at:
            await execution.run_checkpoint_async()

    def _session(self) -> Any:
        execution = self._execution
        session: Any = getattr(execution.job, "session", None)
        if session is None:
            raise JobDefinitionError(f"step.transaction() needs {type(execution.job).__name__}.session")
        return session

    def _refuse_no_move(self, before: tuple[Any, int]) -> None:
        if (self._progress.cursor, self._progress.done) == before:
            raise JobDefinitionError(
                f"step {self.name!r}: a block of step.transaction() ended without step.set() or "
                "step.advance(); move the cursor inside the block, after the work, so that both are "
                "committed together"
            )

    def _go_back(self, before: tuple[Any, int]) -> None:
        self._progress.cursor, self._progress.done = before
        self._live = freeze(self._progress.cursor)
