"""Pattern 1: a job of named steps, each with a cursor, as Rails' ``ActiveJob::Continuation``.

::

    class Import(ContinuableJob):
        def perform(self, import_id):
            self.import_id = import_id  # outside of steps: runs in every execution
            self.step("load")
            self.step("price", start=0)

        def load(self):
            ...

        def price(self, step):
            for row in rows_after(step.cursor):
                price(row)
                step.set(row.id)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from harness import callables, events
from harness.cursor import ATOMIC, freeze, successor
from harness.errors import (
    CompleteEarly,
    Interrupt,
    InvalidStep,
    JobDefinitionError,
    Propagated,
    StepsChanged,
    UsageError,
    carried,
)
from harness.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.context import Context, Portion

StepFunction = Callable[..., object]


class Step:
    """A step in progress, handed to the step's function.

    ``items`` is no keyword-only argument: CPython calls a method that has one without its fast path.
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
        """The position in the step: its ``start`` at first, later what was set."""
        cursor = self._progress.cursor
        # What the job may change in place is its own object, never the one that saves write.
        return cursor if type(cursor) in ATOMIC else self._live

    @property
    def advanced(self) -> bool:
        """True if the cursor moved in this execution; changes in place count."""
        return bool(freeze(self.cursor) != self._before)

    @property
    def description(self) -> str:
        """Position of the step, as text."""
        return f"at {self.name!r}, cursor {self.cursor!r}"

    @property
    def total(self) -> int | None:
        """Number of items of the job, for progress bars; set it as soon as it is known."""
        return self._progress.total

    @total.setter
    def total(self, number: int) -> None:
        """Say how many items there are."""
        self._progress.total = number

    def set(self, cursor: Any, items: int = 1) -> None:
        """Everything up to *cursor* is done: remember that, then checkpoint.

        Call it after the effect, never before: a death in between repeats the effect, the other order loses it.

        :param items: how many items that were, for counts and progress bars.
        :raises CursorError: if the cursor would not come back equal.
        """
        progress = self._progress
        progress.cursor = cursor if type(cursor) in ATOMIC else freeze(cursor)
        self._live = cursor
        progress.done = done = progress.done + items
        if done >= progress.check_at:
            self._execution.run_checkpoint()

    def advance(self, from_: Any = None, items: int = 1) -> None:
        """Move the cursor to the successor of *from_*, by default of itself, then checkpoint.

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
        """A place where the job may stop, with the cursor as it is; changes in place are taken over.

        :raises Interrupt: if the job has to stop here.
        """
        progress = self._progress
        if type(progress.cursor) not in ATOMIC:
            progress.cursor = freeze(self._live)
        if progress.done >= progress.check_at:
            self._execution.run_checkpoint()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Do a piece of work in a transaction of the job's ``session``, and set the cursor in it.

        ::

            with step.transaction() as session:
                price(session, row)
                step.set(row.id)

        The block commits; under ``with_transaction()`` the cursor is in the same commit. The checkpoint comes after
        it. If the block raises, it is rolled back, and the cursor with it.
        """
        execution = self._execution
        session: Any = getattr(execution.job, "session", None)
        if session is None:
            raise JobDefinitionError(f"step.transaction() needs {type(execution.job).__name__}.session")
        progress = self._progress
        before = progress.cursor, progress.done
        execution.holding = True
        try:
            yield session
            if (progress.cursor, progress.done) == before:
                raise JobDefinitionError(
                    f"step {self.name!r}: a block of step.transaction() ended without step.set() or step.advance(); "
                    "move the cursor inside, after the work, so that both are committed together"
                )
            # Died before the commit: nothing happened. After it: with a transaction both work and cursor did, else the
            # work alone, and it is repeated. Answer lost: with a transaction the database is asked which it was.
            if execution.transactional:
                execution.commit(always=True)
            else:
                session.commit()
        except BaseException:
            progress.cursor, progress.done = before
            self._live = freeze(progress.cursor)
            session.rollback()
            raise
        finally:
            execution.holding = False
        if progress.done >= progress.check_at:
            execution.run_checkpoint()


class _Ran:
    """Result of ``self.step("name")`` after it ran a method; it refuses to decorate."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, function: StepFunction) -> None:
        raise InvalidStep(
            f"Step {self._name!r} is a method of the job and ran; "
            f"rename the method or the function {function.__name__!r} decorated with it"
        )


class ContinuableJob(Job, abstract=True):
    """A job of named steps; see the module for an example.

    Subclasses define ``perform``, which runs in every execution: code outside of steps repeats, completed steps
    are skipped.
    """

    perform: Callable[..., object]
    """Define it with the job's arguments: call the steps, always all of them and in the same order."""

    @classmethod
    def check_arguments(cls, kwargs: dict[str, Any], portion: Portion | None) -> None:
        """Refuse a portion, and a policy that cannot work."""
        super().check_arguments(kwargs, portion)
        if portion is not None:
            raise UsageError(f"{cls.__name__} is a job of steps, a portion is for iteration jobs")

    @classmethod
    def check_call(cls, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that ``perform`` cannot be called with."""
        callables.check_call(cls.perform, f"{cls.__name__}.perform", (callables.LATER, *args), kwargs)

    @classmethod
    def _check_definition(cls) -> None:
        super()._check_definition()
        if not hasattr(cls, "perform"):
            raise JobDefinitionError(f"{cls.__name__} must define perform(self, …), which calls its steps")
        cls._check_function("perform")
        cls._check_steps()

    @classmethod
    def _check_steps(cls) -> None:
        """Refuse methods whose call would run nothing of them, and that are named as steps.

        Others may be what they want: helpers. A step whose name is not written where it is called is refused when it
        is reached.
        """
        members = {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("__")}
        suspects = {name for name, value in members.items() if callables.kind_of(value) is not None}
        if not suspects:
            return
        for value in members.values():
            for name in callables.first_arguments(value, "step"):
                if name in suspects:
                    cls._check_function(name)

    @overload
    def step(self, name: StepFunction) -> None: ...

    @overload
    def step(
        self, name: str, *, start: Any = None, isolated: bool = False
    ) -> Callable[[StepFunction], None]: ...

    def step(
        self, name: str | StepFunction, *, start: Any = None, isolated: bool = False
    ) -> Callable[[StepFunction], None] | None:
        """Run a step, or skip it if an earlier execution completed it.

        Three forms: ``self.step("load")`` runs the method ``load``; ``@self.step`` and
        ``@self.step("load", start=0)`` run the decorated function immediately. Either takes no argument or the
        :class:`Step`.

        :param start: the cursor at the beginning; unused when resumed.
        :param isolated: give the step, and what follows it, an execution of its own.
        :raises InvalidStep: if the steps do not match what earlier executions did.
        """
        self._refuse_pending()
        if callable(name):
            self._run_step(getattr(name, "__name__", name), name, None, isolated=False)
            return None
        if isinstance(name, str) and not hasattr(type(self), name):
            self._pending = name
            return lambda function: self._run_pending(name, function, start, isolated=isolated)
        function = getattr(self, name) if isinstance(name, str) else None
        self._run_step(name, function, start, isolated=isolated)
        return _Ran(name)

    # The rest is not for job authors.

    _pending: str | None = None
    _isolating = False

    def run_pattern(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Do the work of one execution."""
        execution = self.execution
        self._encountered: list[str] = []
        self._resume_at = execution.step
        self._before = list(execution.completed)
        if (result := self.perform(*args, **kwargs)) is not None:
            callables.refuse_result(result, self, "perform")
        self._refuse_pending()
        if execution.progress.all_done:
            return
        if self._resume_at is not None:
            raise StepsChanged(
                f"perform ended without step {self._resume_at!r}, which is in progress {execution.description}"
            )
        if execution.step is not None:
            raise InvalidStep(
                f"perform ended while step {execution.step!r} was in progress: it raised, and perform caught that; "
                "let it pass, or catch it inside the step"
            )
        if len(self._encountered) < len(self._before):
            missing = self._before[len(self._encountered)]
            raise StepsChanged(
                f"perform ended without step {missing!r}, which an earlier execution completed"
            )

    def _run_pending(self, name: str, function: StepFunction, start: Any, *, isolated: bool) -> None:
        self._pending = None
        self._run_step(name, function, start, isolated=isolated)

    def _refuse_pending(self) -> None:
        if self._pending is not None:
            raise InvalidStep(
                f"Step {self._pending!r} is no method of {type(self).__name__} and no function follows it; "
                "define the method, or use step() as a decorator"
            )

    def _run_step(self, name: Any, function: StepFunction | None, start: Any, *, isolated: bool) -> None:
        execution = self.execution
        if execution.progress.all_done and isinstance(name, str):  # on_complete alone is left
            events.emit(events.StepSkipped(execution.job_id, type(self).__name__, name))
            return
        self._validate(name)
        if not callable(function):
            raise JobDefinitionError(
                f"{type(self).__name__}.{name} is {function!r}, not a method; give the step another name"
            )
        callables.refuse_function(function, f"step {name!r} of {type(self).__name__}")
        takes_step = callables.takes_step(name, function)
        self._encountered.append(name)
        if len(self._encountered) <= len(self._before):
            events.emit(events.StepSkipped(execution.job_id, type(self).__name__, name))
            return
        resumed, self._resume_at = self._resume_at is not None, None
        if not resumed:
            self._checkpoint_between(isolated=isolated)
            execution.enter(name, start)
        step = Step(name, execution, resumed=resumed)
        with self._observed(step):
            try:
                result = function(step) if takes_step else function()
            except CompleteEarly:
                if execution.transactional and self.in_transaction():
                    execution.commit(always=True)  # the step does not run again, so a rollback would lose it
                raise
            if result is not None:
                callables.refuse_result(result, self, f"step({name!r})")
        execution.complete(name)

    def _checkpoint_between(self, *, isolated: bool) -> None:
        """Checkpoint before a step, once something has advanced in this execution."""
        execution = self.execution
        self._isolating = self._isolating or isolated
        if not execution.advanced:
            return
        if self._isolating:
            execution.interrupt("isolating")
        if execution.progress.done >= execution.progress.check_at:
            execution.run_checkpoint()

    def _validate(self, name: Any) -> None:
        if not isinstance(name, str):
            raise InvalidStep(f"Step {name!r} must be a str or a function; got {type(name).__name__!r}")
        if name in self._encountered:
            raise InvalidStep(f"Step {name!r} has already been encountered")
        current, before, seen = self.execution.step, self._before, len(self._encountered)
        if current is not None and self._resume_at is None:
            raise InvalidStep(f"Step {name!r} is nested inside step {current!r}")
        if self._resume_at is not None and name != self._resume_at and name not in before:
            raise StepsChanged(f"Step {name!r} found, expected to resume from {self._resume_at!r}")
        if seen < len(before) and before[seen] != name:
            raise StepsChanged(f"Step {name!r} found, expected to see {before[seen]!r}")

    @contextmanager
    def _observed(self, step: Step) -> Iterator[None]:
        execution, clock, name = self.execution, self.execution.clock, type(self).__name__
        started = clock()
        events.emit(events.StepStarted(execution.job_id, name, step.name, step.cursor, step.resumed))
        try:
            yield
        except Interrupt:
            where = (execution.job_id, name, step.name, execution.cursor, clock() - started)
            events.emit(events.StepInterrupted(*where))
            raise
        except (Exception, Propagated) as raised:
            where = (execution.job_id, name, step.name, execution.cursor, clock() - started)
            events.emit(events.StepFailed(*where, carried(raised)))
            raise
        where = (execution.job_id, name, step.name, execution.cursor, clock() - started)
        events.emit(events.StepCompleted(*where))
