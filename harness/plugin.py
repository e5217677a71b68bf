"""The pytest plugin: options, markers, fixtures, one item for each trial; what they do is in the lab and the explorer.

Fixtures: ``lab`` (one of each kind for each process: by ``--broker`` and ``--database``, or parametrized:
``@pytest.mark.parametrize("lab", [{"broker": "redis", "database": "postgresql"}], indirect=True)``), ``interruption``
(parametrized: by ``--interrupt``, or by the marker ``@pytest.mark.interruptions("count:20", …)``), ``trial`` (runs one
and keeps its record), ``explore`` (crashes a job everywhere), ``crash_point`` (parametrized by the marker
``@pytest.mark.crash_points(job, …)``: one test a crash point, with its name as the id).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import interruptions
from harness.durability import parse as parse_durability
from harness.errors import HarnessError, UsageError
from harness.explore import Explorer, Verdict
from harness.explore import parse as parse_trial
from harness.interruptions import Interruption, parse
from harness.lab import Lab, MissingService, environment, required
from harness.scenario import Scenario

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.monitor import TrialBar

RECORD, EXPLORATION = "harness-record", "harness-exploration"
"""The names of the user properties that carry what was found from a test, through xdist, into the report."""
PACKAGES = ("rq", "redis", "sqlalchemy", "fakeredis", "pytest")

OPTIONS: dict[str, dict[str, Any]] = {
    "--interrupt": {
        "action": "append",
        "metavar": "NAME",
        "help": "interrupt so, and not as the tests say; may be repeated: count:20, every:7, time:0.5s, "
        "progress:40%%, flag, signal:TERM, …",
    },
    "--pace": {
        "type": float,
        "default": 0.0,
        "metavar": "SECONDS",
        "help": "let the work on each item last so long (default: no wait)",
    },
    "--size": {"default": "quick", "metavar": "NAME", "help": "size of the data: quick or full"},
    "--broker": {
        "default": "fakeredis",
        "metavar": "URL",
        "help": "fakeredis (the worker is in this process), redis (a private server, and workers that can be "
        "killed), or the URL of an empty Redis database",
    },
    "--database": {
        "metavar": "URL",
        "help": "postgresql (a private server), or the URL of an empty database, in place of SQLite files",
    },
    "--durability": {
        "metavar": "NAME",
        "help": "in place of the jobs' own: on_stop(), every(seconds=1), every(items=7), with_transaction()",
    },
    "--records": {
        "metavar": "FILE",
        "help": "write the records of all trials, of all processes, to FILE as JSON",
    },
    "--sample": {
        "metavar": "N",
        "help": "explore at most N trials of each sort, or all, and not as the tests say",
    },
    "--seed": {"type": int, "default": 0, "metavar": "S", "help": "seed of the samples (default: 0)"},
    "--trial": {"metavar": "NAME", "help": "explore just this one: crash:commit#12"},
    "--bar": {"action": "store_true", "help": "show a progress bar in place of dots"},
}

Trial = Callable[..., dict[str, Any]]
Interrupting = Callable[..., AbstractContextManager[None]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the harness."""
    group = parser.getgroup("harness", "interrupting jobs (job-continuation-harness)")
    for name, settings in OPTIONS.items():
        group.addoption(name, **settings)


def pytest_configure(config: pytest.Config) -> None:
    """Check the options before anything is collected or written; register what collects the records."""
    config.addinivalue_line(
        "markers", "interruptions(*names): run the test once for each of these interruptions"
    )
    config.addinivalue_line(
        "markers",
        "crash_points(job, *args, within=…): run the test once for each crash point that the job passes; within is a "
        "function that returns a context manager, in which there is the data that the job needs",
    )
    try:
        _sample(config, None)
        if config.getoption("--trial"):
            parse_trial(config.getoption("--trial"))
        for name in config.getoption("--interrupt") or ():
            parse(name)
        if config.getoption("--durability"):
            parse_durability(config.getoption("--durability"))
        if config.getoption("--pace") < 0:
            raise UsageError(
                f"--pace: found {config.getoption('--pace'):g}, allowed are seconds of 0 or more"
            )
    except UsageError as error:
        pytest.exit(str(error), returncode=2)
    if not hasattr(config, "workerinput"):  # the process that the reports of all others come to
        config.pluginmanager.register(Collector(config), "harness-collector")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each interruption, with its name as the id."""
    if "crash_point" in metafunc.fixturenames:
        _generate_crash_points(metafunc)
    if "interruption" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("interruptions")
    names = metafunc.config.getoption("--interrupt") or (marker.args if marker else ("none",))
    try:
        metafunc.parametrize("interruption", [pytest.param(parse(name), id=name) for name in names])
    except UsageError as error:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error}") from None


class Labs:
    """The labs of this process, each made when it is first asked for."""

    def __init__(self, config: pytest.Config, new_directory: Callable[[str], Path]) -> None:
        self._config, self._new_directory = config, new_directory
        self._labs: dict[tuple[str, str | None], Lab] = {}
        self._stack = ExitStack()

    def get(self, broker: str, database: str | None) -> Lab:
        """Return the lab of that kind."""
        key = broker, database
        if key not in self._labs:
            option = self._config.getoption
            lab = Lab(
                self._new_directory("lab"),
                size=option("--size"),
                pace=option("--pace"),
                broker=broker,
                database=database,
            )
            self._labs[key] = self._stack.enter_context(lab)
        return self._labs[key]

    def close(self) -> None:
        """End them all."""
        self._stack.close()


@pytest.fixture(scope="session")
def labs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """All labs of this process."""
    labs = Labs(request.config, tmp_path_factory.mktemp)
    yield labs
    labs.close()


@pytest.fixture
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    """A broker, a database and a mailbox for the tests of this process."""
    asked = getattr(request, "param", {})
    option = request.config.getoption
    broker = option("--broker") if option("--broker") != "fakeredis" else asked.get("broker", "fakeredis")
    try:
        return labs.get(broker, option("--database") or asked.get("database"))
    except MissingService as error:
        if required():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    except UsageError as error:
        pytest.exit(str(error), returncode=2)


@pytest.fixture
def trial(request: pytest.FixtureRequest, lab: Lab, record_property: Callable[[str, object], None]) -> Trial:
    """Run a trial of a scenario in one of its forms and return its record, which also goes into ``--records``."""
    named = request.config.getoption("--durability")

    def run(
        scenario: Scenario, form: str, interruption: Interruption, durability: Durability | None = None
    ) -> dict[str, Any]:
        asked = parse_durability(named) if named else durability
        try:
            record = lab.run(scenario, form, interruption, asked)
        except UsageError as error:  # an option that only the scenario can judge, such as its size
            pytest.exit(str(error), returncode=2)
        record_property(RECORD, json.dumps(record))
        return record

    return run


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Verdict]:
    """Crash a job everywhere; fail the test unless everything was done as *expect* says; return the verdict.

    Takes what :class:`harness.explore.Explorer` takes, and ``expect="exactly once"``: how the verdict must begin, None
    for any. With ``deploy=``, a new version of the job, that one resumes it; one that refuses by name to go on passes,
    unless ``strict=True``. With ``about=(scenario, pattern, durability)``, three names, the verdict also goes into
    ``--records``.
    """

    def run(
        job: Any,
        *args: Any,
        expect: str | None = "exactly once",
        about: tuple[str, str, str] | None = None,
        **options: Any,
    ) -> Verdict:
        only = request.config.getoption("--trial")
        options = _options(request.config, request.node.nodeid, options)
        with Explorer(job, *args, **options) as explorer:
            verdict = explorer.run([parse_trial(only)] if only else None)
        if about is not None:
            names = dict(zip(("scenario", "pattern", "durability"), about, strict=True))
            request.node.user_properties.append((EXPLORATION, json.dumps({**names, **verdict.summary})))
        refused = verdict.good and bool(verdict.refused)
        if expect is not None and not refused and not verdict.verdict.startswith(expect):
            pytest.fail(verdict.text(), pytrace=False)
        return verdict

    return run


@pytest.fixture
def crash_point(request: pytest.FixtureRequest) -> Verdict:
    """Run the trial that this test is, and return the verdict."""
    marker = _crash_points(request.node)
    with _explorer(request.config, request.node.nodeid, marker) as explorer:
        return explorer.run([parse_trial(request.param)])


def _generate_crash_points(metafunc: pytest.Metafunc) -> None:
    with _explorer(
        metafunc.config, metafunc.definition.nodeid, _crash_points(metafunc.definition)
    ) as explorer:
        names = [metafunc.config.getoption("--trial")]
        metafunc.parametrize("crash_point", names if names[0] else explorer.names(), indirect=True)


def _crash_points(node: Any) -> pytest.Mark:
    marker: pytest.Mark | None = node.get_closest_marker("crash_points")
    if marker is None:
        raise pytest.UsageError(
            f"{node.nodeid}: crash_point needs the marker @pytest.mark.crash_points(job, …)"
        )
    return marker


@contextmanager
def _explorer(config: pytest.Config, nodeid: str, marker: pytest.Mark) -> Iterator[Explorer]:
    options = dict(marker.kwargs)
    within = _within(nodeid, options.pop("within", nullcontext))
    with within, Explorer(*marker.args, **_options(config, nodeid, options)) as explorer:
        yield explorer


def _within(nodeid: str, within: Any) -> AbstractContextManager[object]:
    # A generator's context manager can be called too, but is no function that returns a new one each time.
    found = within if isinstance(within, AbstractContextManager) or not callable(within) else within()
    if found is within or not isinstance(found, AbstractContextManager):
        what = "is" if found is within else "returned"
        raise pytest.UsageError(
            f"{nodeid}: within {what} {type(found).__name__}, allowed is a function without arguments that returns a "
            "context manager: put @contextlib.contextmanager above it, and yield where the data is there"
        )
    return found


def _options(config: pytest.Config, nodeid: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of an explorer: the command line's come before the test's."""
    return {
        "seed": config.getoption("--seed"),
        "command": f"pytest '{nodeid.partition('[')[0]}' --trial {{trial}}",
        **options,
        "sample": _sample(config, options.get("sample")),
    }


def _sample(config: pytest.Config, default: int | None) -> int | None:
    text = config.getoption("--sample")
    if text is None:
        return default
    if text != "all" and not (text.isdecimal() and int(text) > 0):
        raise UsageError(f"--sample: found {text!r}, allowed is a number of 1 or more, or all")
    return None if text == "all" else int(text)


@pytest.fixture
def interrupt_during_step() -> Interrupting:
    """Return the context manager that interrupts a step at a cursor, and fails if nothing was interrupted."""
    return interruptions.interrupt_during_step


@pytest.fixture
def interrupt_after_step() -> Interrupting:
    """Return the context manager that interrupts after a step, and fails if nothing was interrupted."""
    return interruptions.interrupt_after_step


class Collector:
    """Collects the records of all processes, and draws the bar."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._found: dict[str, list[dict[str, Any]]] = {RECORD: [], EXPLORATION: []}
        self._bar: TrialBar | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start the bar where the tests are counted in this process."""
        if session.items:
            self._start_bar(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: list[str]) -> None:
        """Start the bar where other processes count the tests."""
        del node
        self._start_bar(len(ids))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Let the bar speak for the tests that pass."""
        return ("passed" if report.when == "call" else "", "", "") if self._bar and report.passed else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the records out of a report, so that no other report carries them on."""
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name in self._found:
                self._found[name].append(json.loads(str(value)))
        if self._bar:
            self._bar.advance(report.nodeid.rpartition("::")[2])

    def pytest_sessionfinish(self) -> None:
        """Write the records, all of them or nothing."""
        if self._bar:
            self._bar.stop()
        target = self._config.getoption("--records")
        if target and any(self._found.values()):
            option = self._config.getoption
            data = {
                "environment": environment(option("--size"), option("--pace"), PACKAGES),
                "runs": self._found[RECORD],
                "explorations": self._found[EXPLORATION],
            }
            path = Path(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            unfinished.write_text(json.dumps(data), encoding="utf-8")
            unfinished.replace(path)

    def _start_bar(self, total: int) -> None:
        if self._config.getoption("--bar") and self._bar is None:
            # Rich, which that module needs, is optional where no bar is asked for.
            self._bar = import_module("harness.monitor").TrialBar(total)


def pytest_exception_interact(
    call: pytest.CallInfo[Any], report: pytest.CollectReport | pytest.TestReport
) -> None:
    """Show errors that explain themselves as one line, without the way they took."""
    if call.excinfo and isinstance(call.excinfo.value, HarnessError | pytest.UsageError):
        report.longrepr = f"{type(call.excinfo.value).__name__}: {call.excinfo.value}"
