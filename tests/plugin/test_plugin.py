"""The pytest plugin, as a user's project sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import scenarios

PROJECT = """
import pytest
from scenarios.orders import scenario

@pytest.mark.interruptions("count:20", "every:30")
@pytest.mark.parametrize("form", ["plain", "iteration"])
def test_orders(trial, form, interruption):
    assert trial(scenario, form, interruption)["executions"] > 1
"""
QUIET = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a project with four trials of the orders scenario."""
    monkeypatch.setenv("PYTHONPATH", str(Path(scenarios.__file__).parents[1]))
    pytester.makepyfile(PROJECT)
    return pytester


def test_each_interruption_is_a_test_of_its_name(project: pytest.Pytester) -> None:
    """The ids are what the interruptions are called everywhere."""
    result = project.runpytest_subprocess(*QUIET, "--collect-only")
    result.stdout.fnmatch_lines_random(["*test_orders?count:20-plain?", "*test_orders?every:30-iteration?"])


def test_interrupt_on_the_command_line_replaces_the_tests_own(project: pytest.Pytester) -> None:
    """The option replaces the interruptions of the test, and may be repeated."""
    result = project.runpytest_subprocess(
        *QUIET, "-vv", "--harness-interrupt", "flag", "--harness-interrupt", "signal:TERM"
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(["*flag-plain*", "*signal:TERM-iteration*"])


@pytest.mark.sample(1)
@pytest.mark.parametrize("processes", ["0", "2"])
def test_the_records_of_all_processes_come_together(project: pytest.Pytester, processes: str) -> None:
    """One file has them all, with one process or several."""
    project.runpytest_subprocess(
        *QUIET, "-n", processes, "--harness-records", "out/records.json"
    ).assert_outcomes(passed=4)
    data = json.loads((project.path / "out" / "records.json").read_text())
    assert sorted((run["pattern"], run["interruption"]) for run in data["runs"]) == [
        ("iteration", "count:20"), ("iteration", "every:30"), ("plain", "count:20"), ("plain", "every:30"),
    ]  # fmt: skip
    assert data["environment"]["size"] == "quick"
    assert [path.name for path in (project.path / "out").iterdir()] == ["records.json"]


def test_a_bar_leaves_lines_where_there_is_no_terminal(project: pytest.Pytester) -> None:
    """Without a terminal the bar prints lines and no dots."""
    result = project.runpytest_subprocess(*QUIET, "--harness-bar")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["trials 1/4", "trials 4/4"])
    result.stdout.no_fnmatch_line(".*%]")


def test_an_interruption_that_never_fired_fails_its_test(project: pytest.Pytester) -> None:
    """The test fails with one line that gives the reason."""
    result = project.runpytest_subprocess(*QUIET, "--harness-interrupt", "count:1000")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["NothingInterrupted: orders as * was not interrupted by count:1000*"])


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--harness-interrupt", "sometimes"],
            "unknown interruption 'sometimes'; use one of none, count:N*",
        ),
        (
            ["--harness-interrupt", "count:-5"],
            "interruption 'count:-5': got '-5'; use a whole number*",
        ),
        (
            ["--harness-interrupt", "progress:0%"],
            "interruption 'progress:0%': got '0%'; use a number over 0*",
        ),
        (["--harness-pace=-1"], "--harness-pace: got -1; use seconds of 0 or more"),
        (
            ["--harness-database", "sqlite:////nowhere/x.db"],
            "the database sqlite:////nowhere/x.db cannot be reached: *",
        ),
        (["--harness-size", "huge"], "there is no size 'huge'; use one of tiny, quick, full"),
    ],
)
def test_wrong_options_end_in_one_line_and_exit_code_2(
    project: pytest.Pytester, options: list[str], message: str
) -> None:
    """Found, allowed; and nothing is half written."""
    result = project.runpytest_subprocess(*QUIET, *options, "--harness-records", "out/records.json")
    assert result.ret == 2
    (result.stderr if "Exit: " in result.stderr.str() else result.stdout).fnmatch_lines(
        [f"*Exit: {message}*"]
    )
    assert not Path(project.path / "out").exists()


def test_within_must_return_a_context_manager(pytester: pytest.Pytester) -> None:
    """Anything else is an error of usage, which says what was found and what to use."""
    found = {
        "lambda: None": "returned NoneType", "lambda: (yield)": "returned generator",
        "contextlib.nullcontext()": "is nullcontext", "'shop.db'": "is str",
    }  # fmt: skip
    tests = [
        f"""
@pytest.mark.crash_points(print, within={within})
def test_{number}(crash_point):
    assert crash_point.good
"""
        for number, within in enumerate(found)
    ]
    pytester.makepyfile("import contextlib\nimport pytest\n" + "".join(tests))
    result = pytester.runpytest_subprocess(*QUIET)
    result.assert_outcomes(errors=len(found))
    for number, what in enumerate(found.values()):
        result.stdout.fnmatch_lines(
            [f"UsageError: *::test_{number}: within {what}; use a function*contextmanager*"]
        )
    result.stdout.no_fnmatch_line("*crash_points.py*")
