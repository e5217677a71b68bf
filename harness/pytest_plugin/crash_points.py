"""Tests with the marker ``crash_points``: the body runs once for each crash point, as a subtest.

No job runs while tests are collected. So the same tests are collected with xdist, with ``--collect-only`` and if a test
is skipped. The job is recorded in the fixture, in the process that runs the test. With ``shards=N`` there are N tests,
which xdist can give to several processes; each records the job and runs its share of the points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast
from zlib import crc32

import pytest

from harness.errors import UsageError
from harness.explore import Explorer, Verdict, parse_trial
from harness.pytest_plugin.exploring import options_of


@dataclass(frozen=True)
class CrashPoints:
    """Crash points of one test: their names, and the function that runs one of them."""

    explorer: Explorer
    names: list[str]
    subtests: pytest.Subtests


def parametrize_shards(metafunc: pytest.Metafunc) -> None:
    """Create one test for each shard; without shards, one test without a parameter."""
    shards = _marker(metafunc.definition).kwargs.get("shards", 1)
    if type(shards) is not int or shards < 1:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: crash_points got shards={shards!r}; use a number of 1 or more"
        )
    if shards > 1:
        ids = [f"{number + 1} of {shards}" for number in range(shards)]
        metafunc.parametrize("crash_point", range(shards), ids=ids, indirect=True)


@contextmanager
def recorded(request: pytest.FixtureRequest, subtests: pytest.Subtests) -> Iterator[CrashPoints]:
    """Record the job of a test and yield the crash points of the test's shard."""
    marker, config, nodeid = _marker(request.node), request.config, request.node.nodeid
    options = dict(marker.kwargs)
    shards = options.pop("shards", 1)
    only = config.getoption("--harness-trial")
    within = _within(nodeid, options.pop("within", nullcontext))
    with within, Explorer(*marker.args, **options_of(config, nodeid, options)) as explorer:
        shard = getattr(request, "param", 0)
        # By name, not by position: if two processes record different points, the others keep their shards.
        names = (
            [only] if only else [each for each in explorer.names() if crc32(each.encode()) % shards == shard]
        )
        yield CrashPoints(explorer, names, subtests)


def run(item: pytest.Function) -> bool:
    """Run the body of a test once for each crash point; return True, because pytest has nothing left to do."""
    points = cast("CrashPoints", item.funcargs["crash_point"])
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}  # noqa: SLF001 - as pytest does
    for name in points.names:
        with points.subtests.test(msg=name):
            verdict: Verdict = points.explorer.run([parse_trial(name)])
            item.obj(**{**arguments, "crash_point": verdict})
    return True


def _marker(node: Any) -> pytest.Mark:
    marker: pytest.Mark | None = node.get_closest_marker("crash_points")
    if marker is None:
        raise pytest.UsageError(
            f"{node.nodeid}: crash_point needs the marker @pytest.mark.crash_points(job, …)"
        )
    return marker


def _within(nodeid: str, within: Any) -> AbstractContextManager[object]:
    # The context manager of a generator is callable too, but calling it does not return a new one each time.
    found = within if isinstance(within, AbstractContextManager) or not callable(within) else within()
    if found is within or not isinstance(found, AbstractContextManager):
        what = "is" if found is within else "returned"
        raise UsageError(
            f"{nodeid}: within {what} {type(found).__name__}; use a function without arguments that returns "
            "a context manager: put @contextlib.contextmanager above it, and yield when the data exists"
        )
    return found
