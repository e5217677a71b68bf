"""The plugin as a guest in a project that has its own options, fixtures, settings and plugins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

QUIET = ("-q", "-p", "no:cacheprovider")

OWN_NAMES = [
    "lab",
    "trial",
    "explore",
    "interruption",
    "crash_point",
    "interrupt_during_step",
    "interrupt_after_step",
]
OWN_OPTIONS = [
    "--interrupt", "--pace", "--size", "--queue", "--broker", "--database", "--durability", "--records", "--sample",
    "--seed", "--trial", "--bar",
]  # fmt: skip

CHARGE = """
import os
import pathlib
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "main")
engine = sa.create_engine(f"sqlite:///charges-{PROCESS}.db")
RAN = pathlib.Path(__file__).parent / f"ran-{PROCESS}"

@contextmanager
def table():
    with engine.begin() as connection:
        connection.execute(sa.text("drop table if exists charge"))
        connection.execute(sa.text("create table charge (id integer primary key)"))
    yield
    engine.dispose()

def charge():
    RAN.touch()
    for number in (1, 2, 3):
        with engine.begin() as connection:
            connection.execute(sa.text("insert or ignore into charge values (:n)"), {"n": number})
"""


def test_options_of_a_project_keep_their_names(pytester: pytest.Pytester) -> None:
    """A project may define every option that the harness commands have; pytest options begin with --harness-."""
    pytester.makeconftest(
        f"def pytest_addoption(parser):\n    for name in {OWN_OPTIONS}:\n        parser.addoption(name)\n"
    )
    pytester.makepyfile("def test_own(request):\n    assert request.config.getoption('--seed') == '7'\n")
    pytester.runpytest_subprocess(*QUIET, "--seed", "7").assert_outcomes(passed=1)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", OWN_NAMES)
def test_a_fixture_of_a_project_stays_its_own(pytester: pytest.Pytester, name: str) -> None:
    """A project's fixture with the same name as a harness fixture takes precedence, even if it is parametrized."""
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.fixture(params=["theirs"])
        def {name}(request):
            return request.param

        def test_own({name}):
            assert {name} == "theirs"
        """
    )
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=1)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", OWN_NAMES)
def test_an_argument_of_a_project_stays_its_own(pytester: pytest.Pytester, name: str) -> None:
    """A parametrized argument that has the name of one of our fixtures gets the project's values."""
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.parametrize("{name}, other", [("theirs", 1), ("again theirs", 2)])
        def test_own({name}, other):
            assert {name}.endswith("theirs")
        """
    )
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=2)


def test_trial_works_beside_a_lab_of_the_project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness fixture ``trial`` uses the harness lab even if the project has a fixture named ``lab``."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    pytester.makepyfile(
        """
        import pytest
        from scenarios.orders import scenario

        @pytest.fixture
        def lab():
            return "a room with a bench"

        @pytest.mark.interruptions("count:20")
        def test_orders(trial, interruption, lab):
            assert trial(scenario, "steps", interruption)["verdict"] == "exactly once"
            assert lab == "a room with a bench"
        """
    )
    pytester.runpytest_subprocess(*QUIET).assert_outcomes(passed=1)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "options", [["--collect-only"], ["-m", "not slow"], []], ids=["collected", "deselected", "skipped"]
)
def test_no_job_runs_unless_its_test_does(pytester: pytest.Pytester, options: list[str]) -> None:
    """A job is recorded in its test: never while tests are collected, and not for a test that does not run."""
    pytester.makepyfile(
        CHARGE
        + """
@pytest.mark.slow
@pytest.mark.skip(reason="not today")
@pytest.mark.crash_points(charge, within=table)
def test_each(crash_point):
    assert crash_point.good
"""
    )
    pytester.makeini("[pytest]\nmarkers = slow\n")
    pytester.runpytest_subprocess(*QUIET, *options)
    assert not (pytester.path / "ran-main").exists()


@pytest.mark.sample(1)
@pytest.mark.parametrize("processes", ["0", "2"])
def test_crash_points_are_the_same_tests_in_one_process_and_in_two(
    pytester: pytest.Pytester, processes: str
) -> None:
    """Each crash point runs once, as a subtest, in whichever shard and process it is."""
    pytester.makepyfile(
        CHARGE
        + """
@pytest.mark.crash_points(charge, within=table, actions=["crash"], shards=3)
def test_each(crash_point):
    assert crash_point.good
"""
    )
    result = pytester.runpytest_subprocess(*QUIET, "-vv", "-n", processes)
    result.assert_outcomes(passed=3)
    ran = [line.partition("[crash:")[2].partition("]")[0] for line in result.outlines if "SUBPASSED" in line]
    assert sorted(ran) == ["commit#1", "commit#2", "commit#3", "opened#1", "write#1"]
    for shard in range(1, 4):
        result.stdout.fnmatch_lines_random([f"*test_each?{shard} of 3?*"])


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "options",
    [
        ["-n", "2"],
        ["-p", "randomly"],
        ["--import-mode=importlib"],
        ["--strict-markers", "--strict-config"],
        ["-W", "error"],
        ["-p", "no:benchmark"],
        ["-p", "no:xdist"],
    ],
    ids=" ".join,
)
def test_it_works_with_the_options_that_projects_use(pytester: pytest.Pytester, options: list[str]) -> None:
    """Both ways to explore a job pass in a src layout, with other plugins and with warnings as errors."""
    source = pytester.mkdir("src") / "shop"
    source.mkdir()
    (source / "__init__.py").write_text("")
    (source / "charges.py").write_text(CHARGE)
    (pytester.mkdir("checks") / "test_charges.py").write_text(
        "import pytest\n"
        "from shop.charges import charge, table\n"
        "@pytest.mark.crash_points(charge, within=table, actions=['crash'])\n"
        "def test_each(crash_point):\n"
        "    assert crash_point.good\n"
        "def test_all(explore):\n"
        "    with table():\n"
        "        explore(charge)\n"
    )
    pytester.makeini("[pytest]\npythonpath = src\ntestpaths = checks\n")
    pytester.runpytest_subprocess(*QUIET, *options).assert_outcomes(passed=2)


def test_a_session_that_uses_no_fixture_loads_no_lab(pytester: pytest.Pytester) -> None:
    """The plugin alone loads neither the lab nor the packages that the lab needs."""
    pytester.makepyfile(
        "import sys\n"
        "def test_loaded():\n"
        "    heavy = {'sqlalchemy', 'redis', 'rq', 'fakeredis', 'rich', 'aiosmtpd', 'harness.lab', 'harness.explore'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    pytester.runpytest_subprocess(*QUIET, "-p", "no:benchmark").assert_outcomes(passed=1)


@pytest.mark.full
def test_coverage_measures_a_job_that_is_explored(pytester: pytest.Pytester) -> None:
    """An exploration passes under coverage, and the lines of the job count as covered."""
    pytester.makepyfile(
        test_charges=CHARGE + "\ndef test_all(explore):\n    with table():\n        explore(charge)\n"
    )
    command = [sys.executable, "-m", "coverage"]
    run = [*command, "run", "--include", "test_charges.py", "-m", "pytest", *QUIET]
    done = subprocess.run(run, cwd=pytester.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    report = subprocess.run(
        [*command, "report"], cwd=pytester.path, capture_output=True, text=True, check=True
    )
    assert "100%" in report.stdout
