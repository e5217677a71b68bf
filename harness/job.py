"""Base of both patterns: attributes, hooks, durability and the resume policy of a job class."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from harness import cursor as cursors
from harness.boundary import allowed
from harness.durability import Durability, every
from harness.errors import HarnessError, JobDefinitionError, UsageError
from harness.runtime import callables, policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from datetime import timedelta

    from harness.context import Context, Portion
    from harness.progress import Store

T = TypeVar("T")

HOOKS = (
    "on_start", "on_resume", "on_shutdown", "on_complete", "on_cancel", "on_error", "should_stop", "in_transaction",
    "progress_store", "idempotency_key",
)  # fmt: skip
"""Methods that an author may override in both patterns."""

_SYNC_METHODS = ("should_stop", "in_transaction", "progress_store", "idempotency_key")
"""Methods whose result an execution needs immediately, so they cannot be async."""

_BASE_MODULES = {"harness.job", "harness.steps", "harness.iteration"}
"""Modules of the classes that define policy and hooks."""


class attribute(Generic[T]):  # noqa: N801 - reads as the declaration it is
    """A value of a job that is kept between executions.

    ::

        class Import(ContinuableJob):
            rejected = attribute(default=0)

    The default is copied for every job. Values must be allowed as cursors; with *type* they must also be
    instances of it.
    """

    def __init__(self, *, default: T, type: type[T] | None = None) -> None:  # noqa: A002 - the field's word
        self._default, self._type, self._name = default, type, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._check(self._default, owner.__name__)

    def _check(self, value: Any, owner: str) -> None:
        if self._type is not None and not isinstance(value, self._type):
            raise JobDefinitionError(
                f"attribute {owner}.{self._name} takes {self._type.__name__}; got {value!r} "
                f"of type {type(value).__name__}"
            )
        cursors.encode(value, f"attribute {owner}.{self._name}")

    @overload
    def __get__(self, job: None, owner: type) -> attribute[T]: ...

    @overload
    def __get__(self, job: Job, owner: type) -> T: ...

    def __get__(self, job: Job | None, owner: type) -> attribute[T] | T:
        if job is None:
            return self
        values = job.__dict__.setdefault("_attributes", {})
        if self._name not in values:
            values[self._name] = cursors.decode(cursors.encode(self._default))
        return values[self._name]  # type: ignore[no-any-return]  # stored untyped

    def __set__(self, job: Job, value: T) -> None:
        self._check(value, type(job).__name__)
        job.__dict__.setdefault("_attributes", {})[self._name] = value


class Job:
    """Base of the two patterns; its class attributes are the job's policy.

    A job object lives for one execution. It is created without arguments; the job's arguments are passed to its
    methods. Only its :class:`attribute`\\ s are kept. A value that ``__init__`` sets is a default, which a stored
    value replaces.

    Times are seconds or a ``timedelta``. Types and ranges are checked when the class is defined, and again when the
    job is enqueued or run; misspelt names are refused too.
    """

    durability: ClassVar[Durability] = every(seconds=1)
    """Durability of the progress: when it is saved. A run may override it."""

    max_resumptions: ClassVar[int | None] = None
    """Limit of resumptions after interruptions and errors together; None for no limit."""

    resume_delay: ClassVar[float | timedelta] = 0
    """Time between an interruption and the next execution, scheduled by the queue."""

    error_delay: ClassVar[float | timedelta] = 5
    """Time between an error that is resumed and the next execution; ``resume_delay`` if that is longer.

    An interruption is intended, so the job continues without a delay. An error has a cause, such as a
    database restart. An execution that starts a few milliseconds later would meet the same cause and fail
    without progress. So an outage of one second would fail the job. Rails also waits five seconds."""

    resume_queue: ClassVar[str | None] = None
    """Name of the queue that the job continues in, after an interruption or a resumed error; None for its own.

    The workers of this package apply it. A worker must listen to that queue."""

    resume_at_front: ClassVar[bool] = False
    """Resume the job before all other jobs of its queue."""

    resume_errors_after_advancing: ClassVar[bool] = True
    """Resume instead of raising if this execution made progress before the error."""

    max_runtime: ClassVar[float | timedelta | None] = None
    """Time after which an execution stops at its next checkpoint, so that other jobs can run."""

    max_crashes: ClassVar[int] = 10
    """Number of crashes in a row, with no item done in between, after which the job fails."""

    former_paths: ClassVar[tuple[str, ...]] = ()
    """Earlier names of a moved or renamed class, as in ``("shop.jobs:Import",)``, so that unfinished jobs continue."""

    grace_period: ClassVar[float | timedelta] = 25
    """Time between SIGTERM and SIGKILL in a deploy; the log warns of a checkpoint that comes later."""

    max_unsaved: ClassVar[float | timedelta | None] = 5
    """Time for which the job continues while its progress cannot be saved; then it waits at a checkpoint.

    None: no limit.
    """

    execution: Context
    """The execution that runs this object."""

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not abstract:
            cls._check_definition()
            _FORMER_NAMES.update(dict.fromkeys(vars(cls).get("former_paths", ()), cls))

    @classmethod
    def _check_definition(cls) -> None:
        for name, value in vars(cls).items():
            if isinstance(value, attribute) and any(name in vars(base) for base in cls.__mro__[1:]):
                owner = next(base for base in cls.__mro__[1:] if name in vars(base))
                if not isinstance(vars(owner)[name], attribute):
                    raise JobDefinitionError(
                        f"attribute {cls.__name__}.{name} hides {owner.__name__}.{name}; give it another name"
                    )
        paths = cls.former_paths
        if type(paths) is not tuple or not all(isinstance(path, str) and ":" in path for path in paths):
            raise JobDefinitionError(
                f"{cls.__name__}.former_paths takes a tuple of names such as ('shop.jobs:Import',); got {paths!r}"
            )
        policy.check_names(cls, (base for base in cls.__mro__ if base.__module__ in _BASE_MODULES))
        cls._check_policy()
        for name in HOOKS:
            cls._check_function(name, allowed=() if name in _SYNC_METHODS else (callables.ASYNC,))

    @classmethod
    def _check_policy(cls) -> None:
        """Check settings that may have changed since the class was defined; each enqueue calls it."""
        policy.check_values(cls)
        policy.check_constructor(cls)

    @classmethod
    def _check_function(
        cls, name: str, *, allowed: Sequence[str] = (callables.ASYNC,), instead: str = ""
    ) -> None:
        """Refuse a method that does nothing when called; by default, an ``async def`` is allowed."""
        function = inspect.getattr_static(cls, name, None)
        if function is not None:
            callables.refuse_function(function, f"{cls.__name__}.{name}", allowed=allowed, instead=instead)

    @classmethod
    def progress_store(cls) -> Store | None:
        """Return the progress store; None, the default, means the queue's own store.

        Called once an execution, in the process that runs it.
        """
        return None

    @classmethod
    def has_progress_store(cls) -> bool:
        """Return whether the class chooses its store itself, without calling the method."""
        return chooses_store(cls)

    @classmethod
    def path(cls) -> str:
        """Return the dotted name under which a worker finds this class: ``module:qualname``."""
        return f"{cls.__module__}:{cls.__qualname__}"

    # on_start, on_resume and on_complete belong to the work. Their errors are errors of the execution, and
    # CompleteEarly, CancelJob and RetryLater work as usual.

    def on_start(self) -> Awaitable[None] | None:
        """Run before the first item or step; run again if it raised or the execution saved nothing."""

    def on_resume(self) -> Awaitable[None] | None:
        """Run at the start of every later execution."""

    def on_complete(self) -> Awaitable[None] | None:
        """Run when all items or steps are done, as the last part of the work, before ``completed``.

        "All done" is saved before it runs. So after an error, a crash or ``RetryLater`` here the next
        execution repeats no item and no step: it runs ``on_resume``, enters and leaves ``around_iterate`` (or
        runs ``perform`` with all steps skipped), and runs ``on_complete`` again. It runs at least once, so it
        must be repeatable.
        """

    # The hooks below run after the end of an execution was saved. Their errors do not change the end: an
    # error, or a control exception such as RetryLater, becomes a HookFailed event with its traceback in the
    # log. Their changes of attributes are kept if they return. After a crash before or in them they do not
    # run again: they run at most once. SystemExit and KeyboardInterrupt pass.

    def on_shutdown(self) -> Awaitable[None] | None:
        """Run after every execution that did not raise, before ``on_complete`` and the update of the queue."""

    def on_cancel(self) -> Awaitable[None] | None:
        """Run when the job was cancelled, instead of ``on_complete``."""

    def on_error(self, error: Exception) -> Awaitable[None] | None:
        """Run when an execution ends with an error, resumed or not, including errors of this package.

        At ``max_resumptions`` it runs twice: for the error that is no longer resumed, and for
        ``ResumeLimit``. It does not run while the progress store is unreachable (``ProgressUnavailable``):
        such an execution has no end to save.
        """

    def should_stop(self) -> bool | str | None:
        """Return True or a reason to stop here; if overridden, each checkpoint calls it."""
        return None

    def in_transaction(self) -> bool:
        """Return whether there is uncommitted work; a checkpoint is then refused.

        By default it checks ``self.session``, if that is a session such as SQLAlchemy's. Override it for
        several sessions.
        """
        ask = getattr(getattr(self, "session", None), "in_transaction", None)
        return bool(ask()) if callable(ask) else False

    async def stopping(self) -> str:
        """Wait until the job has to stop, and return the reason; for coroutines with long waits.

        ::

            page = asyncio.create_task(client.get(url))
            stop = asyncio.create_task(self.stopping())
            await asyncio.wait({page, stop}, return_when=asyncio.FIRST_COMPLETED)

        The next checkpoint stops the job. SIGTERM, ``max_runtime``, a pause and a cancellation end the wait.
        """
        return await self.execution.stopping()

    @classmethod
    def check_arguments(cls, kwargs: dict[str, Any], portion: Portion | None) -> None:
        """Refuse settings that this kind of job cannot run with, and an invalid policy."""
        del kwargs, portion
        cls._check_policy()

    @classmethod
    def check_call(cls, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that the methods of this job cannot be called with.

        :raises UsageError: saying which argument is missing, too many, or of another type than annotated.
        """

    def idempotency_key(self, item: Any) -> str:
        """Return a key for an effect on an item outside a transaction, such as a mail or a payment.

        It is the same in every execution of this job, and differs for every other item and job. A job that is
        enqueued again under its id after its end is another job.

        :param item: a value that identifies the item and is allowed as a cursor: an id, not the row. :raises
            CursorError: for a value that is not allowed as a cursor.
        """
        round_id = self.execution.progress.round_id
        owner = [self.execution.job_id, cursors.encode(item, "item"), *([round_id] if round_id else [])]
        name = json.dumps(owner, sort_keys=True)
        return hashlib.sha256(name.encode()).hexdigest()[:32]

    def run_pattern(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Do the work of one execution; implemented by the patterns, not by job authors."""
        raise NotImplementedError


_FORMER_NAMES: dict[str, type[Job]] = {}
"""Job classes by their former names."""


def find(path: str) -> Any:
    """Return the object named by ``package.module:Name``, or the module named by ``package.module``.

    A former name of a job class finds the class if its module is imported.

    :raises UsageError: naming the part that cannot be found.
    """
    try:
        return _find(path)
    except UsageError:
        if path in _FORMER_NAMES:
            return _FORMER_NAMES[path]
        raise


def find_stored(path: str) -> Any:
    """Return the object with a stored dotted name, if ``HARNESS_JOB_MODULES`` allows its module.

    A former name of an imported class needs no import.

    :raises JobNotAllowed: if the setting does not allow it.
    :raises UsageError: naming the part that cannot be found.
    """
    if path in _FORMER_NAMES and not allowed.is_allowed(path):
        return _FORMER_NAMES[path]
    allowed.check(path)
    return find(path)


def chooses_store(job_class: type[Job]) -> bool:
    """Return whether a class has its own ``progress_store()``, without calling it."""
    name = "progress_store"
    return next(vars(each)[name] for each in job_class.__mro__ if name in vars(each)) is not vars(Job)[name]


def find_imported(path: Any) -> type[Job] | None:
    """Return the imported job class with a stored dotted name; None if it is not imported."""
    if not isinstance(path, str) or path.partition(":")[0] not in sys.modules:
        return None
    try:
        found = find_stored(path)
    except HarnessError:
        return None  # the delivery raises it
    return found if isinstance(found, type) and issubclass(found, Job) else None


def _find(path: str) -> Any:
    module_name, _, names = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path!r} cannot be imported ({error}); use package.module or package.module:Name, on the "
            "Python path"
        ) from error
    for name in names.split(".") if names else ():
        if not hasattr(found, name):
            raise UsageError(f"{path!r} cannot be found: {module_name} has no {name!r}")
        found = getattr(found, name)
    return found
