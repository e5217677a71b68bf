"""Rules for every test here: nothing is left behind, and long matrices are run in part unless all is asked for."""

from __future__ import annotations

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
    """Add the option that runs all of the long matrices."""
    parser.addoption(
        "--full", action="store_true", default=os.environ.get("HARNESS_FULL") == "1",
        help="run all cases of the long matrices and whole samples, not a part that covers all pairs",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "process: starts processes or servers; set by fixtures where possible")
    config.addinivalue_line("markers", "full: one more case of a kind that is tried anyway; only with --full")
    config.addinivalue_line(
        "markers", "pairwise: a long matrix; by default cases that cover all pairs of values, with --full all"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark what starts processes; without --full leave out what covers no further pair of parameters."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        case = item.name.partition("[")[2]
        if fixtures & PROCESS_FIXTURES or any(part in case for part in PROCESS_PARAMETERS):
            item.add_marker(pytest.mark.process)
    yield  # -m and -k choose
    if config.getoption("--full"):
        return
    matrices: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("pairwise"):
            matrices[item.nodeid.partition("[")[0]].append(item)
    left_out: dict[str, list[int]] = {}
    dropped: set[pytest.Item] = {item for item in items if item.get_closest_marker("full")}
    for cases in matrices.values():
        dropped.update(set(cases) - covering(cases))
    for item in items:
        counted = left_out.setdefault(item.nodeid.partition("[")[0], [0, 0])
        counted[0] += item in dropped
        counted[1] += 1
    if dropped:
        items[:] = [item for item in items if item not in dropped]
        config.hook.pytest_deselected(items=list(dropped))
    config.stash[_left_out] = {name: counted for name, counted in left_out.items() if counted[0]}
    if hasattr(config, "workeroutput"):
        config.workeroutput[LEFT_OUT] = config.stash[_left_out]


def covering(cases: list[pytest.Function]) -> set[pytest.Function]:
    """Return few cases in which every pair of values of two parameters is that is in all of them."""
    waiting = {case: pairs(case.callspec) for case in sorted(cases, key=lambda case: case.nodeid)}
    random.Random(SEED).shuffle(order := list(waiting))  # noqa: S311 - a choice that anybody can repeat
    uncovered = set().union(*waiting.values())
    kept = set()
    while uncovered:
        best = max(order, key=lambda case: len(waiting[case] & uncovered))
        kept.add(best)
        uncovered -= waiting[best]
    return kept


def pairs(callspec: Any) -> set[frozenset[tuple[str, str]]]:
    """Return all pairs of a case's parameters, each with its value; of a single parameter, itself."""
    values = [(name, repr(value)) for name, value in callspec.params.items()]
    return {frozenset(pair) for pair in combinations(values, min(2, len(values)))}


_left_out = pytest.StashKey[dict[str, list[int]]]()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of xdist left out; each collects the same tests."""
    if found := getattr(node, "workeroutput", {}).get(LEFT_OUT):
        node.config.stash[_left_out] = found


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was left out."""
    for name, (number, of) in sorted(config.stash.get(_left_out, {}).items()):
        terminalreporter.write_line(f"{name}: {number} of {of} cases left out; --full runs all")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves threads, child processes, signal handlers or settings of the environment behind."""
    threads = set(threading.enumerate())
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    variables = {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
    yield
    left = [
        t.name for t in threading.enumerate() if t not in threads and not t.name.startswith(SESSION_THREADS)
    ]
    assert not left, f"threads left behind: {left}"
    for number, handler in handlers.items():
        assert signal.getsignal(number) == handler, f"handler of {signal.Signals(number).name} left behind"
    assert variables == {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
    with pytest.raises(ChildProcessError):  # there is no child, not even one that has ended
        os.waitpid(-1, os.WNOHANG)
