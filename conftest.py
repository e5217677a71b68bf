"""Rules for all tests: a test cleans up after itself, and without --full only a part of long matrices runs."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

pytest_plugins = ["pytester"]

SESSION_THREADS = ("Thread-",)
"""Prefix of threads that last for the whole session: the lab's mail server runs in one of aiosmtpd's naming."""
LEFT_OUT = "left out"
"""Name under which an xdist worker reports the tests that it left out."""
SEED = 0
"""Seed of the choice among cases that cover the same pairs."""
PROCESS_FIXTURES = {"postgresql_url", "redis_url", "pytester"}
"""Fixtures that start servers, or Python, in processes of their own."""
PROCESS_PARAMETERS = ("postgresql", "redis")
"""Parts of the ids of tests whose parameters start a server."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs the whole of long matrices."""
    parser.addoption(
        "--full", action="store_true", default=os.environ.get("HARNESS_FULL") == "1",
        help="run all cases of the long matrices and whole samples, not a part that covers all pairs",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; collect no garbage until all tests are there, which takes a quarter less time."""
    gc.disable()
    config.addinivalue_line("markers", "process: starts processes or servers; set by fixtures where possible")
    config.addinivalue_line("markers", "full: one more case of a kind that is tried anyway; only with --full")
    config.addinivalue_line(
        "markers", "pairwise: a long matrix; by default cases that cover all pairs of values, with --full all"
    )
    config.addinivalue_line(
        "markers", "each: by default cases that have each value once; all with --full, or for a report"
    )
    config.addinivalue_line("markers", "sample(n): cases of one kind; by default n of them, with --full all")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark tests that start processes; without --full, choose some cases of each test."""
    for item in items:
        mark_process(item)
    yield  # -m and -k choose
    if config.getoption("--full"):
        return
    left_out: dict[str, list[int]] = {}
    dropped: set[pytest.Item] = {item for item in items if item.get_closest_marker("full")}
    matrices: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if item not in dropped and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            matrices[item.nodeid.partition("[")[0]].append(item)
    # A report compares all forms under all interruptions, and their cost.
    reports = config.getoption("--harness-records", default=None) or config.getoption(
        "benchmark_enable", default=False
    )
    for cases in matrices.values():
        if not reports or cases[0].get_closest_marker("pairwise"):
            dropped.update(set(cases) - chosen(cases))
    for item in items:
        counted = left_out.setdefault(item.nodeid.partition("::")[0], [0, 0])
        counted[0] += item in dropped
        counted[1] += 1
    if dropped:
        items[:] = [item for item in items if item not in dropped]
        config.hook.pytest_deselected(items=list(dropped))
    config.stash[_left_out] = {name: counted for name, counted in left_out.items() if counted[0]}
    if hasattr(config, "workeroutput"):
        config.workeroutput[LEFT_OUT] = config.stash[_left_out]


def pytest_collection_finish() -> None:
    """Collect garbage again."""
    gc.enable()


def mark_process(item: pytest.Item) -> None:
    """Mark a test that starts processes."""
    fixtures = set(getattr(item, "fixturenames", ()))
    case = item.name.partition("[")[2]
    if fixtures & PROCESS_FIXTURES or any(part in case for part in PROCESS_PARAMETERS):
        item.add_marker(pytest.mark.process)


def chosen(cases: list[pytest.Function]) -> set[pytest.Function]:
    """Return the cases of a test that run by default.

    Cases that start processes run until each value of each parameter was in one of them.
    """
    if sample := cases[0].get_closest_marker("sample"):
        return set(shuffled(cases)[: sample.args[0]])
    if cases[0].get_closest_marker("pairwise"):
        return covering(cases, 2)
    if cases[0].get_closest_marker("each"):
        return covering(cases, 1)
    slow = [case for case in cases if case.get_closest_marker("process")]
    return set(cases).difference(slow) | covering(slow, 1)


def covering(cases: list[pytest.Function], together: int) -> set[pytest.Function]:
    """Return few cases that have every combination of values of so many parameters that is in all of them."""
    waiting = {case: combined(case.callspec, together) for case in shuffled(cases)}
    uncovered = set().union(*waiting.values())
    kept = set()
    while uncovered:
        best = max(waiting, key=lambda case: len(waiting[case] & uncovered))
        kept.add(best)
        uncovered -= waiting[best]
    return kept


def shuffled(cases: list[pytest.Function]) -> list[pytest.Function]:
    """Return cases in a random order that is the same in each run."""
    order = sorted(cases, key=lambda case: case.nodeid)
    random.Random(SEED).shuffle(order)  # noqa: S311 - the choice must be repeatable
    return order


def combined(callspec: Any, together: int) -> set[frozenset[tuple[str, str]]]:
    """Return all combinations of so many of a case's parameters, each with its value."""
    values = [(name, repr(value)) for name, value in callspec.params.items()]
    return {frozenset(some) for some in combinations(values, min(together, len(values)))}


_left_out = pytest.StashKey[dict[str, list[int]]]()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of xdist left out; each collects the same tests."""
    if found := getattr(node, "workeroutput", {}).get(LEFT_OUT):
        node.config.stash[_left_out] = found


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the cases that were left out."""
    for name, (number, of) in sorted(config.stash.get(_left_out, {}).items()):
        terminalreporter.write_line(f"{name}: {number} of {of} cases left out; --full runs all")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves threads, child processes, signal handlers, or settings of the environment or the log."""
    threads = set(threading.enumerate())
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    variables = {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
    logged = logging.root.level, logging.root.manager.disable
    yield
    left = [
        t.name for t in threading.enumerate() if t not in threads and not t.name.startswith(SESSION_THREADS)
    ]
    assert not left, f"threads left behind: {left}"
    for number, handler in handlers.items():
        assert signal.getsignal(number) == handler, f"handler of {signal.Signals(number).name} left behind"
    assert variables == {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
    assert logged == (logging.root.level, logging.root.manager.disable)
    with pytest.raises(ChildProcessError):  # there is no child, not even one that has ended
        os.waitpid(-1, os.WNOHANG)
