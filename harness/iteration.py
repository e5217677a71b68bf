"""Pattern 2: a job that does the same work on many items, like Shopify's ``job-iteration``.

::

    class Price(IterationJob):
        def build_enumerator(self, import_id, *, cursor):
            return records(session, Row.of_import(import_id), cursor=cursor)

        def each_iteration(self, row, import_id):
            price(row)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from harness import events
from harness.concurrency.kept_items import Quarantined
from harness.concurrency.window import is_concurrent, refuse_serial, refuse_transaction
from harness.cursor import ATOMIC, freeze
from harness.errors import (
    CancelJob,
    CompleteEarly,
    HarnessError,
    Interrupt,
    JobDefinitionError,
    Propagated,
    QuarantineFull,
    RetryLater,
    StepsChanged,
    UsageError,
    carried,
)
from harness.job import Job
from harness.progress import DIED
from harness.runtime import async_items, callables
from harness.runtime.listeners import of_items
from harness.runtime.loops import EitherWay
from harness.sources.enumerators import Enumerator, as_pair, enumerator_of, iterating

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from harness.context import Portion

STEP = "each_iteration"
"""The name of the only step that an iteration job has."""

_AROUND = "decorate it with @contextlib.contextmanager or, with async def and yield, @contextlib.asynccontextmanager"
"""Forms of ``around_iterate``, for errors."""


class IterationJob(Job, abstract=True):
    """A job over an enumerator; see the module for an example.

    The cursor is saved only after ``each_iteration`` returned, so it means "done up to and including here".
    """

    build_enumerator: Callable[..., Any]
    """Define it as ``build_enumerator(self, …, *, cursor)``, with the job's arguments.

    Return the items after *cursor* as pairs ``(item, cursor)``, in an iterable or an async iterable. None
    means that no items are left: all hooks run, as for an empty list, because earlier executions may have
    done items. It is called once in every execution that has work to do.
    """

    each_iteration: Callable[..., object]
    """Define it as ``each_iteration(self, item, …)``, with the job's arguments: do the work on one item."""

    new_session: Callable[..., Any]
    """Define it as ``new_session(self)`` if ``concurrency`` is more than 1: return a SQLAlchemy session for one item.
    ``self.transaction()`` then gives that session, which is closed when the item ends."""

    quarantine: ClassVar[bool] = False
    """Set aside an item that fails repeatedly or crashes its worker, so that the job continues."""

    max_item_failures: ClassVar[int] = 3
    """Number of failures or crashes in a row after which an item is set aside."""

    max_quarantined: ClassVar[int] = 100
    """Number of items that may be set aside; with more, the job fails."""

    concurrency: ClassVar[int] = 1
    """Number of concurrent items: coroutines of one event loop, or threads if ``each_iteration`` is plain."""

    _in_item = False
    """True if an item ended with an exception."""

    def on_quarantine(self, item: Any, error: str) -> Awaitable[None] | None:
        """Run when an item was set aside.

        Its cursor was saved before, in ``Progress.quarantined``. An error here becomes a ``HookFailed`` event
        and the job continues; ``CompleteEarly``, ``CancelJob`` and ``RetryLater`` work as usual. It runs at
        most once for an item, also after a crash.
        """

    def transaction(self) -> EitherWay:
        """Do the work on an item in a transaction of ``self.session``, under any durability.

        ``with self.transaction() as session:`` commits when the block ends. Under ``with_transaction()`` the
        commit is made later, together with the cursor. In hooks, which have no cursor, it commits when the
        block ends; in ``on_complete`` it commits together with ``completed``. With an ``AsyncSession`` it is
        ``async with self.transaction() as session:``.
        """
        return async_items.transaction_of(self)

    def around_iterate(self) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
        """Return a context manager, plain or async, around the work of each execution, ``build_enumerator`` included.

        Use it for objects that live as long as an execution, such as a session or a connection. If it
        suppresses an error, the items after the error are still not done.
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
        for each in ("each_iteration", "on_quarantine", "on_all_done"):
            cls._check_function(each)
        every_kind = (callables.ASYNC, callables.GENERATOR, callables.ASYNC_GENERATOR)
        cls._check_function("build_enumerator", allowed=every_kind)
        cls._check_function("around_iterate", allowed=(), instead=_AROUND)
        refuse_transaction(cls, cls.durability)
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

    @classmethod
    def check_arguments(cls, kwargs: dict[str, Any], portion: Portion | None) -> None:
        """Refuse a job argument named cursor, and a policy that cannot work."""
        super().check_arguments(kwargs, portion)
        if "cursor" in kwargs:
            raise UsageError(
                f"{cls.__name__}: the argument name 'cursor' is reserved; to start in the middle use Portion(after=…)"
            )

    @classmethod
    def check_call(cls, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that ``build_enumerator`` or ``each_iteration`` cannot be called with."""
        name, build, each = cls.__name__, cls.build_enumerator, cls.each_iteration
        later = callables.LATER
        callables.check_call(build, f"{name}.build_enumerator", (later, *args), {**kwargs, "cursor": later})
        callables.check_call(each, f"{name}.each_iteration", (later, later, *args), kwargs)

    def run_pattern(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Do the work of one execution."""
        raised: BaseException | None = None
        around = self._around()
        if async_items.is_async_manager(around) or async_items.needs_loop(self) or is_concurrent(self):
            self.execution.loop.run(async_items.run_items(self, around, args, kwargs))
            self.execution.progress.completed = [STEP]
            return
        with around:
            try:
                # If all items are done, only on_complete is left; it may need the objects that around_iterate
                # creates.
                if not self.execution.progress.all_done:
                    self._run_within(args, kwargs)
            except BaseException as error:
                raised = error
                raise
        if raised is not None:  # around_iterate suppressed the error, but the items after it are not done
            raise raised
        self.execution.progress.completed = [STEP]

    def _run_within(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        execution = self.execution
        self._refuse_steps()
        start = execution.portion.after if execution.step is None else execution.cursor
        found: Any = None
        try:
            found = execution.loop.finish(self.build_enumerator(*args, cursor=freeze(start), **kwargs))
            enumerator = self._begin_enumerator(found, start)
            if enumerator is None:
                return
            if enumerator.is_async:
                execution.loop.run(async_items.run_enumerator(self, enumerator, args, kwargs))
            else:
                self._run_enumerator(enumerator, args, kwargs)
        except Interrupt as control:
            self._keep_what_is_done(control)
            if isinstance(control, CompleteEarly) and isinstance(found, Enumerator):
                found.ended_early(execution)
            raise
        if execution.transactional:
            execution.commit()

    def _begin_enumerator(self, found: Any, start: Any) -> Enumerator[Any] | None:
        """Enter the step with the result of ``build_enumerator``; return the iterable or None."""
        execution = self.execution
        enumerator = None if found is None else enumerator_of(found, type(self).__name__)
        if enumerator is not None:
            refuse_serial(self, enumerator)
            enumerator = enumerator.within(execution)
        if enumerator is None:
            events.emit(events.NothingToIterate(execution.job_id, type(self).__name__))
            return None
        if execution.step is None:
            execution.enter(STEP, start)
        elif enumerator.witness is not None:
            enumerator.witness.check(start, execution.progress.proof)
        execution.witness = enumerator.witness
        return enumerator

    def _refuse_steps(self) -> None:
        """Refuse progress that this class saved as a job of steps: its cursors have no meaning here.

        :raises StepsChanged: naming the step.
        """
        for step in (*self.execution.completed, self.execution.step):
            if step not in {None, STEP}:
                raise StepsChanged(
                    f"Step {step!r} found in the progress, but {type(self).__name__} is now a job of items, "
                    "which has no steps; deploy the code that the job started with, or start it again"
                )

    def _keep_what_is_done(self, control: Interrupt) -> None:
        """Commit the items that are done, because leaving ``around_iterate`` would roll them back.

        The work of an item in progress is not committed, unless the item completes the job.
        """
        always = self._is_kept(control)
        if always is not None:
            self.execution.commit(always=always)

    def _is_kept(self, control: Interrupt) -> bool | None:
        """Return whether to commit the finished work: True to commit always, None to commit nothing."""
        if not self.execution.transactional:
            return None
        if isinstance(control, CompleteEarly):
            return True
        return False if isinstance(control, RetryLater | CancelJob) and not self._in_item else None

    def _note_drift(self, enumerator: Enumerator[Any]) -> None:
        execution = self.execution
        if execution.total is None:
            # Counted once and stored: done items may have left the collection when the job resumes.
            execution.total = execution.portion.size_of(enumerator.size)
            return
        now = execution.portion.size_of(enumerator.free_size)
        if now is not None and now != execution.total:
            name = type(self).__name__
            events.emit(events.CollectionDrifted(execution.job_id, name, execution.total, now))

    def _run_enumerator(
        self, enumerator: Enumerator[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        execution, limit = self.execution, self.execution.portion.limit
        progress = execution.progress
        before = progress.done, progress.cursor
        self._note_drift(enumerator)
        with iterating(enumerator) as pairs:
            if self._is_to_set_aside():
                self._set_aside(pairs)
            wanted = pairs if limit is None else self._first(pairs, limit)
            self._iterate(wanted, args, kwargs, batched=enumerator.batched)
        self._emit_nothing_found(before)

    def _is_to_set_aside(self) -> bool:
        """Return whether the next item has failed too often; from its first failure on, save after each item."""
        progress = self.execution.progress
        if self.quarantine and progress.failures:
            self.execution.save_every_item()
            # With several items in progress, an item other than the first may have crashed the worker.
            several = self.concurrency > 1 and progress.failure == DIED
            return progress.failures > (max(1, self.max_item_failures) if several else self.max_item_failures)
        return False

    def _emit_nothing_found(self, before: tuple[int, Any]) -> None:
        execution = self.execution
        progress, limit = execution.progress, execution.portion.limit
        if (progress.done, progress.cursor) == before and limit is None and not self._starts_instances:
            events.emit(events.NothingFound(execution.job_id, type(self).__name__, execution.done))

    @property
    def _starts_instances(self) -> bool:
        parallel_run = self.execution.parallel_run
        return not self.execution.completes and parallel_run is not None and parallel_run.instance is None

    def _iterate(
        self,
        pairs: Iterator[tuple[Any, Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        batched: bool,
    ) -> None:
        execution, progress, each, listeners = (
            self.execution,
            self.execution.progress,
            self.each_iteration,
            of_items,
        )
        bare = not (args or kwargs)
        for pair in pairs:
            item, cursor = pair if type(pair) is tuple and len(pair) == 2 else as_pair(pair)
            # Frozen before the work: a cursor that cannot be stored is refused before any work, and later
            # changes by the enumerator have no effect.
            position = cursor if type(cursor) in ATOMIC else freeze(cursor)
            try:
                result = each(item) if bare else each(item, *args, **kwargs)
                if result is not None:  # a decorator may hide that it must be awaited
                    result = execution.loop.finish(result)
            except BaseException as error:
                self._note_failure(error, position)
                raise
            if result is not None:
                callables.refuse_result(result, self, "each_iteration")
            progress.cursor = position
            progress.done = done = progress.done + (len(item) if batched else 1)
            if listeners:
                name = type(self).__name__
                events.emit(events.ItemDone(execution.job_id, name, position, execution.items))
            if done >= progress.check_at:
                execution.run_checkpoint()

    def _note_failure(self, error: BaseException, cursor: Any) -> None:
        self._emit_failed(error, cursor)
        self._count_failure(error)

    def _emit_failed(self, error: BaseException, cursor: Any) -> None:
        self._in_item = True
        error = carried(error) if isinstance(error, Propagated) else error
        if isinstance(error, Exception):
            events.emit(events.ItemFailed(self.execution.job_id, type(self).__name__, cursor, error))

    def _count_failure(self, error: BaseException) -> None:
        error = carried(error) if isinstance(error, Propagated) else error
        if isinstance(error, Exception) and self.quarantine and not isinstance(error, HarnessError):
            self.execution.fail_item(error)

    def _first(self, pairs: Iterator[tuple[Any, Any]], limit: int) -> Iterator[tuple[Any, Any]]:
        while self.execution.done < limit:  # checked before the next item is read
            try:
                yield next(pairs)
            except StopIteration:
                return

    def _set_aside(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        """Skip the item that failed too often, before this execution works on it.

        One write records that the item was set aside and moves the cursor past it. Crash before it:
        the next execution sets it aside.
        """
        pair = next(pairs, None)
        if pair is not None:
            aside = self._pass_over(pair)
            self.execution.run_hook("on_quarantine", pair[0], aside.error, at_work=True)

    def _pass_over(self, pair: tuple[Any, Any], passed: Callable[[], None] | None = None) -> Quarantined:
        """Save that an item was set aside, and report it; *passed* moves the cursor of concurrent items."""
        execution, progress = self.execution, self.execution.progress
        _, cursor = pair
        if len(progress.quarantined) >= self.max_quarantined:
            raise QuarantineFull(
                f"{type(self).__name__} has set {self.max_quarantined} items aside (max_quarantined), and "
                f"the next item failed too: {progress.failure}"
            )
        aside = Quarantined(freeze(cursor), progress.failures, progress.failure or "")
        progress.quarantined.append(aside)
        if passed is None:
            progress.cursor = aside.cursor
        else:
            passed()
        # Crash after it, before or in on_quarantine: the hook does not run for this item, and the job
        # continues after it.
        execution.save_on_the_way("quarantine")
        name = type(self).__name__
        events.emit(events.ItemQuarantined(execution.job_id, name, aside.cursor, aside.failures, aside.error))
        return aside

    def _around(self) -> Any:
        found: Any = self.around_iterate()
        if hasattr(type(found), "__enter__") or async_items.is_async_manager(found):
            return found
        callables.close(found)
        raise JobDefinitionError(
            f"{type(self).__name__}.around_iterate returned {type(found).__name__}; return a context manager: {_AROUND}"
        )
