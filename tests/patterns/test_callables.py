"""Code that does nothing when called is refused: when the class is defined, else by what the call returned."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from harness import ContinuableJob, InlineRun, IterationJob, events, run
from harness.errors import JobDefinitionError
from harness.runtime.callables import ASYNC, ASYNC_GENERATOR, GENERATOR, kind_of
from harness.stops import CANCEL, Count
from tests.jobs import DONE


async def coroutine(*args: Any, **kwargs: Any) -> None:
    """Do nothing when called."""
    DONE.append("async")


def generator(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Do nothing when called."""
    DONE.append("generator")
    yield


async def async_generator(*args: Any, **kwargs: Any) -> Any:
    """Do nothing when called."""
    DONE.append("async generator")
    yield


def hidden(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function that passes on what another returns, as decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class CallableObject:
    """Has an async ``__call__``."""

    async def __call__(self, *args: Any) -> None:
        """Do nothing."""


class Awaitable:
    """Object that some libraries return instead of a coroutine."""

    def __await__(self) -> Iterator[None]:
        """Do nothing."""
        yield


LAZY = [generator, async_generator]
"""Functions that no execution calls."""
ASKED = ("should_stop", "in_transaction")
"""Hooks whose answer is needed at once."""


def iteration(**members: Any) -> type[Any]:
    """Define an iteration job over two items, with some members of its own."""

    def build_enumerator(self: Any, *, cursor: Any) -> Any:
        return [] if cursor else [("a", 1), ("b", 2)]

    def each_iteration(self: Any, item: str) -> None:
        DONE.append(item)

    plain = {"build_enumerator": build_enumerator, "each_iteration": each_iteration, "quarantine": True}
    return type("Job", (IterationJob,), {**plain, "__module__": __name__, **members})


def steps(**members: Any) -> type[Any]:
    """Define a job of one step, with some members of its own."""

    def perform(self: Any) -> None:
        self.step("load")

    def load(self: Any) -> None:
        DONE.append("load")

    return type(
        "Job", (ContinuableJob,), {"perform": perform, "load": load, "__module__": __name__, **members}
    )


HOOKS = (
    "on_start",
    "on_resume",
    "on_shutdown",
    "on_complete",
    "on_cancel",
    "on_error",
    "should_stop",
    "in_transaction",
)
WRAPPED = [
    lambda function: function,
    functools.partialmethod,
    functools.partial,
    staticmethod,
    classmethod,
    functools.lru_cache,
    functools.singledispatchmethod,
    lambda function: functools.partialmethod(functools.partial(function)),
]


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize(
    ("name", "lazy"),
    [
        *(
            (name, lazy)
            for name in (*HOOKS, "each_iteration", "on_quarantine", "around_iterate")
            for lazy in LAZY
        ),
        *((name, coroutine) for name in (*ASKED, "around_iterate")),
    ],
)
def test_a_method_of_an_iteration_job_is_refused_when_the_class_is_defined(
    name: str, lazy: Any, wrap: Any
) -> None:
    """A function that is neither called nor awaited, seen through whatever the standard library wraps it in."""
    with pytest.raises(JobDefinitionError, match=rf"Job\.{name} is an? [a-z ]*function.*nothing"):
        iteration(**{name: wrap(lazy)})


@pytest.mark.parametrize("lazy", LAZY)
@pytest.mark.parametrize("name", [*HOOKS, "perform", "load"])
def test_a_method_of_a_job_of_steps_is_refused_when_the_class_is_defined(name: str, lazy: Any) -> None:
    """Such a method is refused, even if ``perform`` names it as a step."""
    with pytest.raises(JobDefinitionError, match=rf"Job\.{name} is an? [a-z ]*function.*nothing"):
        steps(**{name: lazy})


def test_the_error_says_what_to_write_instead() -> None:
    """The error names the replacement for each kind."""
    with pytest.raises(JobDefinitionError, match=r"write def instead of async def: its result is needed"):
        iteration(should_stop=coroutine)
    with pytest.raises(JobDefinitionError, match="write it without yield"):
        iteration(each_iteration=generator)
    with pytest.raises(
        JobDefinitionError, match=r"@contextlib\.contextmanager.*@contextlib\.asynccontextmanager"
    ):
        iteration(around_iterate=async_generator)


def test_what_does_its_work_is_accepted(done: list[object]) -> None:
    """A generator of pairs, a context manager, a decorator that runs a coroutine to its end, async helpers."""

    def to_the_end(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return asyncio.run(function(*args))

        return wrapper

    class Job(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            yield "a", 1

        @contextmanager
        def around_iterate(self) -> Iterator[None]:
            yield

        @to_the_end
        async def each_iteration(self, item: str) -> int:
            await self.helper(item)
            return 17

        async def helper(self, item: str) -> None:
            done.append(item)

        def pieces(self) -> Iterator[int]:
            yield 1

    run(Job)
    assert done == ["a"]


@pytest.mark.parametrize("lazy", [*LAZY, lambda *_: map(print, "x")])
@pytest.mark.parametrize(
    "name", ["each_iteration", "on_start", "on_shutdown", "on_complete", "on_quarantine", "should_stop"]
)
def test_a_result_that_has_done_nothing_is_refused(name: str, lazy: Any, done: list[object]) -> None:
    """A lazy result hidden by a decorator counts as no work done, and leaves no warning."""
    members: dict[str, Any] = {name: hidden(lazy)}
    if name == "on_quarantine":
        members |= {"max_item_failures": 0, "each_iteration": lambda self, item: 1 / 0}
    inline = InlineRun(iteration(**members))
    failed: list[events.HookFailed] = []
    told = "nothing has been done yet"
    with events.subscribe(failed.append, events.HookFailed):  # type: ignore[arg-type]  # only these come
        if name in {"on_shutdown", "on_quarantine"}:  # whose errors change nothing
            inline.drain()
            assert [(each.hook, told in str(each.error)) for each in failed] == [(name, True)]
            return
        with pytest.raises(JobDefinitionError, match=rf"returned an? .* {told}"):
            inline.drain()
    progress = inline.progress
    assert progress is not None
    assert progress.state == "failed"
    if name == "each_iteration":
        assert (progress.done, progress.cursor, progress.failures) == (0, None, 0)


@pytest.mark.parametrize("lazy", [*LAZY, coroutine])
def test_what_is_no_context_manager_is_refused_before_any_work(lazy: Any, done: list[object]) -> None:
    """The result of around_iterate must be a context manager; anything else is refused before any work."""
    with pytest.raises(JobDefinitionError, match=r"around_iterate returned .*; return a context manager"):
        run(iteration(around_iterate=hidden(lazy)))
    assert done == []


@pytest.mark.parametrize("found", [5, "text", {"a": 1}])
def test_what_cannot_be_iterated_is_refused_before_any_work(found: Any, done: list[object]) -> None:
    """The result of build_enumerator must be iterable; anything else is refused before any work."""

    async def later(self: Any, *, cursor: Any) -> Any:
        return found

    for build in (later, lambda self, *, cursor: found):
        with pytest.raises(JobDefinitionError, match=r"build_enumerator returned .*; return an iterable"):
            run(iteration(build_enumerator=build))
    assert done == []


@pytest.mark.parametrize("lazy", [coroutine, lambda *_: Awaitable()])
@pytest.mark.parametrize(
    "name", [*(name for name in HOOKS if name not in ASKED), "each_iteration", "on_quarantine"]
)
def test_a_coroutine_that_a_decorator_hides_is_awaited(name: str, lazy: Any, done: list[object]) -> None:
    """The same is done whether or not the class shows that a function is async."""
    members: dict[str, Any] = {name: hidden(lazy)}
    if name in {"on_quarantine", "on_error"}:
        members |= {"max_item_failures": 0, "each_iteration": lambda self, item: 1 / 0}
    inline = InlineRun(iteration(**members), stops=[Count(1)] if name in {"on_resume", "on_cancel"} else [])
    if name == "on_cancel":
        inline.stops[:] = [lambda at: CANCEL if at.done else None]
    inline.drain()
    assert ("async" in done) == (lazy is coroutine)
    assert inline.progress is not None
    assert inline.progress.state == ("cancelled" if name == "on_cancel" else "completed")


@pytest.mark.parametrize("lazy", LAZY)
def test_a_step_is_refused_when_it_is_reached(lazy: Any, done: list[object]) -> None:
    """A function inside perform, a method named by a variable, and one that a decorator hides."""

    def inside(self: Any) -> None:
        self.step("other")(lazy)

    def by_variable(self: Any) -> None:
        for name in ("one", "load"):
            self.step(name)

    jobs = [
        steps(perform=inside),
        steps(perform=by_variable, load=lazy, one=lambda self: None),
        steps(load=hidden(lazy)),
        steps(perform=hidden(lazy)),
    ]
    for job in jobs:
        inline = InlineRun(job)
        with pytest.raises(JobDefinitionError, match="nothing"):
            inline.drain()
        assert inline.progress is not None
        assert inline.progress.completed in ([], ["one"])
    assert done == []


def test_a_stop_source_that_is_async_is_refused(done: list[object]) -> None:
    """Its coroutine is true, and would stop the job at every checkpoint."""
    inline = InlineRun(iteration(), stops=[coroutine])  # type: ignore[list-item]
    with pytest.raises(JobDefinitionError, match="stop source returned a coroutine"):
        inline.drain()
    assert inline.progress is not None
    assert inline.progress.done == 1


def test_the_kind_of_other_callables() -> None:
    """Objects with an async ``__call__``, and what is no function at all."""
    assert kind_of(CallableObject()) == ASYNC
    assert kind_of(async_generator) == ASYNC_GENERATOR
    assert kind_of(functools.partial(generator, 1)) == GENERATOR
    others: list[Any] = [len, int, print, None, 17, contextmanager(generator), DONE.append]
    assert {kind_of(each) for each in others} == {None}
