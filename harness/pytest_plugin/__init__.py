"""The pytest plugin: options, markers and fixtures. Its other modules are loaded on first use.

Fixtures: ``lab`` (one lab of each kind for each process: by ``--harness-queue``, ``--harness-broker`` and
``--harness-database``, or parametrized: ``@pytest.mark.parametrize("lab", [{"queue": "celery", "broker": "redis"}],
indirect=True)``), ``interruption`` (parametrized by ``--harness-interrupt`` or by the marker
``@pytest.mark.interruptions("count:20", …)``), ``trial`` (runs a trial and keeps its record), ``explore`` (crashes a
job at every crash point), ``crash_point`` (with the marker ``@pytest.mark.crash_points(job, …)``: the test's body runs
once for each crash point, as a subtest with its name), ``interrupt_during_step`` and ``interrupt_after_step``.

If a project defines a fixture or an argument with one of these names, its own definition is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from harness.explore import Verdict
    from harness.interruptions import Interruption
    from harness.lab import Lab
    from harness.pytest_plugin.labs import Labs

EXTRA = frozenset({"aiosmtpd", "fakeredis", "rich"})
"""Packages that only the fixtures need, not the plugin itself; the extra ``test`` installs them."""

OPTIONS: dict[str, dict[str, Any]] = {
    "--harness-interrupt": {
        "action": "append",
        "metavar": "NAME",
        "help": "interruption to use instead of the tests' own; may be repeated: count:20, every:7, time:0.5s, "
        "progress:40%%, flag, signal:TERM, …",
    },
    "--harness-pace": {
        "type": float,
        "default": 0.0,
        "metavar": "SECONDS",
        "help": "duration of each item (default: no wait)",
    },
    "--harness-size": {"default": "quick", "metavar": "NAME", "help": "size of the data: quick or full"},
    "--harness-queue": {
        "metavar": "NAME",
        "help": "queue that runs the jobs, instead of the tests' own: rq, celery or dramatiq",
    },
    "--harness-broker": {
        "metavar": "URL",
        "help": "fakeredis (the worker is in this process; default of rq), redis (a private server, and workers "
        "that can be killed; default of the others), rabbitmq (for celery and dramatiq), or the URL of an empty "
        "Redis database",
    },
    "--harness-database": {
        "metavar": "URL",
        "help": "postgresql (a private server), or the URL of an empty database, instead of SQLite files",
    },
    "--harness-durability": {
        "metavar": "NAME",
        "help": "instead of the jobs' own: on_stop(), every(seconds=1), every(items=7), with_transaction()",
    },
    "--harness-records": {
        "metavar": "FILE",
        "help": "write the records of all trials in all processes to FILE as JSON",
    },
    "--harness-sample": {
        "metavar": "N",
        "help": "explore at most N trials of each kind, or all, instead of the tests' own number",
    },
    "--harness-seed": {"type": int, "default": 0, "metavar": "S", "help": "seed of the samples (default: 0)"},
    "--harness-trial": {"metavar": "NAME", "help": "explore only this trial, such as crash:commit#12"},
    "--harness-accept": {
        "action": "append",
        "default": [],
        "metavar": "NAME",
        "help": "accept an effect that the explorer does not see, such as process; may be repeated",
    },
    "--harness-processes": {
        "type": int,
        "metavar": "N",
        "help": "explore in N processes, instead of the tests' own number (default: one on each core; "
        "one in a worker of pytest-xdist)",
    },
    "--harness-bar": {"action": "store_true", "help": "show a progress bar instead of dots"},
}

Trial = Callable[..., dict[str, Any]]
Interrupting = Callable[..., "AbstractContextManager[None]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all of which begin with ``--harness-``."""
    group = parser.getgroup("harness", "interrupting jobs (job-continuation-harness)")
    for name, settings in OPTIONS.items():
        group.addoption(name, **settings)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; check the options, if any was given, before anything is collected or written."""
    config.addinivalue_line(
        "markers", "interruptions(*names): run the test once for each of these interruptions"
    )
    config.addinivalue_line(
        "markers",
        "crash_points(job, *args, within=…, shards=1): run the test's body once for each crash point of "
        "the job; within is a function that returns a context manager, and the job's data exists inside "
        "it; shards divides the crash points among that number of tests",
    )
    if any(config.getoption(name) != settings.get("default", False) for name, settings in _given(config)):
        _load("options").check(config)
    if not hasattr(config, "workerinput") and (
        config.getoption("--harness-records") or config.getoption("--harness-bar")
    ):
        # Only in the process that receives the reports of all others.
        config.pluginmanager.register(_load("collector").Collector(config), "harness-collector")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Create one test for each interruption and for each shard of the crash points, without running a job."""
    if _is_ours(metafunc.definition, "interruption"):
        _load("options").parametrize_interruptions(metafunc)
    if _is_ours(metafunc.definition, "crash_point"):
        _load("crash_points").parametrize_shards(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run the body of a test with a ``crash_point`` once for each crash point."""
    return _load("crash_points").run(pyfuncitem) if _is_ours(pyfuncitem, "crash_point") else None


def pytest_exception_interact(
    call: pytest.CallInfo[Any], report: pytest.CollectReport | pytest.TestReport
) -> None:
    """Show usage errors as one line, without a traceback."""
    errors = sys.modules.get("harness.errors")
    known: tuple[type[BaseException], ...] = (errors.HarnessError,) if errors else ()
    if call.excinfo and isinstance(call.excinfo.value, known):
        report.longrepr = f"{type(call.excinfo.value).__name__}: {call.excinfo.value}"


@pytest.fixture(scope="session")
def _harness_labs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """All labs of this process."""
    labs: Labs = _load("labs").Labs(request.config, tmp_path_factory.mktemp)
    yield labs
    labs.close()


@pytest.fixture
def lab(request: pytest.FixtureRequest, _harness_labs: Labs) -> Lab:
    """Broker, database and mailbox for the tests of this process."""
    return _harness_labs.asked_for(getattr(request, "param", {}))


@pytest.fixture
def interruption(request: pytest.FixtureRequest) -> Interruption:
    """Interruption of this test; each requested interruption is a separate test."""
    asked: Interruption = request.param
    return asked


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    lab: object,
    _harness_labs: Labs,
    record_property: Callable[[str, object], None],
) -> Trial:
    """Run a trial of a scenario in one of its forms and return its record, which ``--harness-records`` collects."""
    # A project may have its own fixture "lab".
    chosen = lab if _harness_labs.has(lab) else _harness_labs.asked_for({})
    runner: Trial = _load("labs").trial_in(chosen, request.config, record_property)
    return runner


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Verdict]:
    """Crash a job at every point; fail the test unless the verdict is *expect*; return the verdict.

    It takes the arguments of :class:`harness.explore.Explorer`, and ``expect="exactly once"``: the beginning of the
    verdict, None for any. With ``deploy=``, a new version of the job resumes it. The test also passes if the new
    version refuses with a named error, unless ``strict=True``. With ``about=(scenario, pattern, durability)``, three
    names, ``--harness-records`` collects the verdict.
    """
    explorer: Callable[..., Verdict] = _load("exploring").explorer_for(request)
    return explorer


@pytest.fixture
def crash_point(request: pytest.FixtureRequest, subtests: pytest.Subtests) -> Iterator[Any]:
    """Verdict on one crash point; the test's body runs once for each, as a subtest with its name."""
    with _load("crash_points").recorded(request, subtests) as points:
        yield points


@pytest.fixture
def interrupt_during_step() -> Interrupting:
    """Return the context manager that interrupts a step at a cursor, and fails if nothing was interrupted."""
    interrupting: Interrupting = import_module("harness.interruptions").interrupt_during_step
    return interrupting


@pytest.fixture
def interrupt_after_step() -> Interrupting:
    """Return the context manager that interrupts after a step, and fails if nothing was interrupted."""
    interrupting: Interrupting = import_module("harness.interruptions").interrupt_after_step
    return interrupting


def _given(config: pytest.Config) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, settings) for name, settings in OPTIONS.items() if config.getoption(name) is not None)


def _is_ours(node: Any, name: str) -> bool:
    """Return whether a test uses this plugin's fixture of that name, not the project's own fixture or argument."""
    definitions = node._fixtureinfo.name2fixturedefs.get(name)  # noqa: SLF001 - pytest has no public way to ask
    if not definitions or definitions[-1].func.__module__ != __name__:
        return False
    return name not in _arguments(node)


def _arguments(node: Any) -> set[str]:
    """Return the names of the arguments that a test's ``parametrize`` markers give it."""
    found: set[str] = set()
    for mark in node.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        found.update(names.replace(",", " ").split() if isinstance(names, str) else names)
    return found


def _load(module: str) -> Any:
    """Return a module of :mod:`harness.pytest_plugin`; fail with the name of a missing package."""
    try:
        return import_module(f"harness.pytest_plugin.{module}")
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise pytest.UsageError(
            f"this needs {error.name}, which is not installed; run pip install 'job-continuation-harness[test]'"
        ) from None
