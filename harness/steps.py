"""Pattern 1: a job of named steps, each with a cursor, like Rails' ``ActiveJob::Continuation``.

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
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, overload

from harness import events
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
from harness.runtime import callables
from harness.runtime.loops import is_awaitable, unwrapped
from harness.runtime.stepping import Step

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from harness.context import Portion

StepFunction = Callable[..., object]


class Called(Protocol):
    """Result of ``self.step("name")``: a decorator, or an awaitable."""

    def __call__(self, function: StepFunction) -> Any:
        """Run the function as the step; for an async function, return an awaitable."""

    def __await__(self) -> Generator[Any, Any, None]:
        """Run the step, if its function is async."""
        ...


class _StepResult:
    """Result of ``self.step("name")`` after it ran a method: awaitable, but not a decorator."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()

    def __call__(self, function: StepFunction) -> None:
        raise InvalidStep(
            f"Step {self._name!r} is a method of the job and ran; "
            f"rename the method or the decorated function {function.__name__!r}"
        )


class _AsyncStep:
    """Step whose function is async, in an async ``perform``: it runs when it is awaited."""

    def __init__(self, job: Any, name: str, run: Callable[[], Any]) -> None:
        self._job, self.name, self._run = job, name, run

    def __await__(self) -> Generator[Any, Any, None]:
        self._job._awaiting(self)  # noqa: SLF001 - a part of the job
        yield from self._run().__await__()

    def __call__(self, function: StepFunction) -> None:
        _StepResult(self.name)(function)


class ContinuableJob(Job, abstract=True):
    """A job of named steps; see the module for an example.

    Subclasses define ``perform``, which runs in every execution: code outside of steps is repeated, completed
    steps are skipped.
    """

    perform: Callable[..., object]
    """Call all steps, always in the same order. Define it with the job's arguments; it may be async."""

    @classmethod
    def check_arguments(cls, kwargs: dict[str, Any], portion: Portion | None) -> None:
        """Refuse a portion, and an invalid policy."""
        super().check_arguments(kwargs, portion)
        if portion is not None:
            raise UsageError(f"{cls.__name__} is a job of steps; a portion is for iteration jobs")

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
        """Refuse step methods that do nothing when called.

        Other methods are helpers and are not checked. A step whose name is not a literal in the call is
        checked when it runs.
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
    def step(self, name: StepFunction) -> Any: ...

    @overload
    def step(self, name: str, *, start: Any = None, isolated: bool = False) -> Called: ...

    def step(self, name: str | StepFunction, *, start: Any = None, isolated: bool = False) -> Any:
        """Run a step, or skip it if an earlier execution completed it.

        Three forms: ``self.step("load")`` runs the method ``load``; ``@self.step`` and
        ``@self.step("load", start=0)`` run the decorated function immediately. Either takes no argument or the
        :class:`Step`.

        In an ``async def perform``, await a step whose function is async: ``await self.step("load")``. If the
        decorator was applied to an async function, await the function's name: ``await load``. Steps run one
        after the other.

        :param start: initial cursor; ignored if the step is resumed.
        :param isolated: start a new execution for the step and those that follow.
        :raises InvalidStep: if the steps do not match what earlier executions did.
        """
        self._refuse_pending()
        if callable(name):
            return self._run_step(getattr(name, "__name__", name), name, None, isolated=False)
        if isinstance(name, str) and not hasattr(type(self), name):
            self._pending = name
            return lambda function: self._run_pending(name, function, start, isolated=isolated)
        function = getattr(self, name) if isinstance(name, str) else None
        return self._run_step(name, function, start, isolated=isolated) or _StepResult(name)

    # Internals: not for job authors.

    _pending: str | None = None
    _isolating = False
    _unawaited: _AsyncStep | None = None

    def run_pattern(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Do the work of one execution."""
        execution = self.execution
        self._encountered: list[str] = []
        self._resume_at = execution.step
        self._before = list(execution.completed)
        if (result := execution.loop.finish(self.perform(*args, **kwargs))) is not None:
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
                f"perform ended while step {execution.step!r} was in progress: it raised an error, and "
                "perform caught it; do not catch it, or catch it inside the step"
            )
        if len(self._encountered) < len(self._before):
            missing = self._before[len(self._encountered)]
            raise StepsChanged(
                f"perform ended without step {missing!r}, which an earlier execution completed"
            )

    def _run_pending(self, name: str, function: StepFunction, start: Any, *, isolated: bool) -> Any:
        self._pending = None
        return self._run_step(name, function, start, isolated=isolated)

    def _refuse_pending(self) -> None:
        if self._pending is not None:
            raise InvalidStep(
                f"Step {self._pending!r} is not a method of {type(self).__name__}, and no function follows "
                "it; define the method, or use step() as a decorator"
            )
        if (forgotten := self._unawaited) is not None:
            raise InvalidStep(
                f"Step {forgotten.name!r} of {type(self).__name__} was not awaited and did not run; write "
                f"await self.step({forgotten.name!r}), or await the name of the decorated function"
            )

    def _awaiting(self, step: _AsyncStep) -> None:
        if self._unawaited is not step:
            raise InvalidStep(f"Step {step.name!r} is awaited twice; await it once, where it is called")
        self._unawaited = None

    def _run_step(self, name: Any, function: StepFunction | None, start: Any, *, isolated: bool) -> Any:
        """Run a step; in a coroutine, return an awaitable if the step's function is async."""
        asynchronous = callables.kind_of(function) == callables.ASYNC
        if function is not None and asynchronous and self.execution.loop.is_running:
            waits = partial(self._run_step_async, name, function, start, isolated=isolated)
            self._unawaited = _AsyncStep(self, name, waits)
            return self._unawaited
        if (begun := self._admit(name, function)) is None or function is None:
            return None
        execution, (takes_step, resumed) = self.execution, begun
        if not resumed:
            if self._is_checkpoint_due(isolated=isolated):
                execution.run_checkpoint()
            execution.enter(name, start)
        step = Step(name, execution, resumed=resumed)
        with self._observed(step):
            try:
                result: Any = function(step) if takes_step else function()
                if is_awaitable(result) and not execution.loop.is_running:
                    result = execution.loop.run(result)
            except CompleteEarly:
                if execution.transactional and self.in_transaction():
                    execution.commit(always=True)  # the step does not run again, so a rollback would lose it
                raise
            # A function that caught the interruption and returned has left items undone: the step keeps its cursor.
            # Saved as completed it would be skipped from then on, and they would be lost without an error.
            execution.refuse_swallowed()
            if result is not None:
                callables.refuse_result(result, self, f"step({name!r})")
        execution.complete(name)
        return None

    async def _run_step_async(self, name: Any, function: StepFunction, start: Any, *, isolated: bool) -> None:
        """Run a step as :meth:`_run_step` does, with a function that is awaited."""
        if (begun := self._admit(name, function)) is None:
            return
        execution, (takes_step, resumed) = self.execution, begun
        if not resumed:
            if self._is_checkpoint_due(isolated=isolated):
                await execution.run_checkpoint_async()
            execution.enter(name, start)
        step = Step(name, execution, resumed=resumed)
        with self._observed(step):
            try:
                result: Any = function(step) if takes_step else function()
                result = await result
            except CompleteEarly:
                if execution.transactional and self.in_transaction():
                    await execution.commit_async(always=True)  # as above
                raise
            except BaseExceptionGroup as group:
                found = unwrapped(group)
                if found is group:
                    raise
                raise found from group
            execution.refuse_swallowed()  # as above
            if result is not None:
                callables.refuse_result(result, self, f"step({name!r})")
        await execution.complete_async(name)

    def _admit(self, name: Any, function: StepFunction | None) -> tuple[bool, bool] | None:
        """Return whether the function takes the step and whether it is resumed; None to skip the step."""
        execution = self.execution
        if execution.progress.all_done and isinstance(name, str):  # only on_complete is left
            events.emit(events.StepSkipped(execution.job_id, type(self).__name__, name))
            return None
        self._validate(name)
        if not callable(function):
            raise JobDefinitionError(
                f"{type(self).__name__}.{name} is {function!r}, not a method; give the step another name"
            )
        title = f"step {name!r} of {type(self).__name__}"
        callables.refuse_function(function, title, allowed=(callables.ASYNC,))
        takes_step = callables.takes_step(name, function)
        self._encountered.append(name)
        if len(self._encountered) <= len(self._before):
            events.emit(events.StepSkipped(execution.job_id, type(self).__name__, name))
            return None
        resumed, self._resume_at = self._resume_at is not None, None
        return takes_step, resumed

    def _is_checkpoint_due(self, *, isolated: bool) -> bool:
        """Return whether to checkpoint before a step: True if this execution has made progress.

        :raises Interrupt: if the step needs a new execution.
        """
        execution = self.execution
        self._isolating = self._isolating or isolated
        if not execution.advanced:
            return False
        if self._isolating:
            execution.interrupt("isolating")
        return execution.progress.done >= execution.progress.check_at

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
