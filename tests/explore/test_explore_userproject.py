"""A project that knows nothing of the harness is explored from outside, by its own tests and the installed plugin."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import harness

PROJECT = Path(__file__).parents[1] / "userproject"
COMMAND = "from harness.cli import main; main()"
QUIET = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Copy the project to where its tests run."""
    shutil.copytree(PROJECT, pytester.path, dirs_exist_ok=True)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(harness.__file__).parents[1]), str(pytester.path)])
    )
    return pytester


def test_nothing_in_the_project_mentions_the_harness() -> None:
    """The user's project names the harness nowhere."""
    for path in (PROJECT / "shopapp").glob("*.py"):
        assert "harness" not in path.read_text()


def test_its_tests_find_what_is_wrong(project: pytest.Pytester) -> None:
    """A test of a job that repeats fails with the lines and the member; the others pass."""
    result = project.runpytest_subprocess(
        *QUIET, "checks", "-k", "not misbehaved and not each and not out_of_time"
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "shopapp.tasks:charge_fees: duplicated",
            (
                "*died after shopapp/tasks.py:21, before it came there again, crash:commit#1; fees: (member_id=1, "
                "month='2024-05'), 2 times, first written at shopapp/tasks.py:21; and * more trials there"
            ),
            "*again: pytest 'checks/test_tasks.py::test_charge_fees' --harness-trial crash:commit#1",
        ]
    )
    result.stdout.fnmatch_lines(["*mails: to member1@example.com: Welcome, 2 times, first written at*"])


def test_misbehaved_jobs_are_reported_and_the_others_go_on(project: pytest.Pytester) -> None:
    """A deadlock, an endless loop, an exit, a fork, and a recovery that waits for ever."""
    result = project.runpytest_subprocess(*QUIET, "checks", "-k", "misbehaved")
    result.assert_outcomes(passed=5)


def test_a_job_may_run_out_of_time_anywhere(project: pytest.Pytester) -> None:
    """In the middle of a commit or of a library's cleaning up, too: nothing stays locked."""
    project.runpytest_subprocess(*QUIET, "checks", "-k", "out_of_time").assert_outcomes(passed=7)


@pytest.mark.sample(1)
@pytest.mark.parametrize("processes", ["0", "2"])
def test_one_subtest_is_one_crash_point(project: pytest.Pytester, processes: str) -> None:
    """The marker makes a subtest of each crash point, named after it; the same in one process or in two."""
    result = project.runpytest_subprocess(*QUIET, "-vv", "-n", processes, "checks", "-k", "each")
    found = set(re.findall(r"SUB(PASSED|FAILED)\[(crash:[a-z-]+#\d+)\]", result.stdout.str()))
    assert found == {
        ("PASSED", "crash:before-statement#1"),
        *(("FAILED", f"crash:commit#{n}") for n in range(1, 6)),
    }


def test_one_trial_is_repeated_by_name(project: pytest.Pytester) -> None:
    """As the finding's last line says."""
    command = (*QUIET, "checks/test_tasks.py::test_charge_fees", "--harness-trial")
    project.runpytest_subprocess(*command, "crash:commit#1").assert_outcomes(failed=1)
    project.runpytest_subprocess(*command, "crash:before-commit#1").assert_outcomes(passed=1)
    result = project.runpytest_subprocess(*command, "crash:somewhere")
    assert result.ret == 2
    result.stderr.fnmatch_lines(["*unknown trial 'crash:somewhere'; use crash:KIND#N*"])


def test_the_command_explores_a_function_by_name(project: pytest.Pytester) -> None:
    """With its arguments; exit code 1 if something is wrong, 0 if not."""
    subprocess.run(
        [sys.executable, "-c", "from shopapp import models; models.fill()"], check=True, cwd=project.path
    )
    results = [
        subprocess.run(
            [sys.executable, "-c", COMMAND, "explore", f"shopapp.tasks:{name}", "2024-05", "--sample", "5"],
            capture_output=True, text=True, check=False, cwd=project.path,
        )
        for name in ("charge_fees", "charge_fees_once")
    ]  # fmt: skip
    assert [result.returncode for result in results] == [1, 0], results[0].stderr
    assert "shopapp.tasks:charge_fees: duplicated" in results[0].stdout
    assert (
        "harness explore shopapp.tasks:charge_fees '\"2024-05\"' --trial crash:commit#" in results[0].stdout
    )
    assert results[1].stdout.startswith("shopapp.tasks:charge_fees_once: exactly once")


@pytest.mark.full
def test_the_command_writes_json(project: pytest.Pytester) -> None:
    """One verdict a line, with its findings."""
    subprocess.run(
        [sys.executable, "-c", "from shopapp import models; models.fill()"], check=True, cwd=project.path
    )
    trials = ("--trial", "crash:commit#2", "--trial", "freeze:before-statement#1")
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, "explore", "shopapp.tasks:charge_fees", "2024-05", "--json", *trials],
        capture_output=True, text=True, check=False, cwd=project.path,
    )  # fmt: skip
    verdict = json.loads(result.stdout)
    assert (verdict["job"], verdict["verdict"]) == ("shopapp.tasks:charge_fees", "duplicated")
    assert [finding["trial"] for finding in verdict["findings"]] == [
        "crash:commit#2",
        "freeze:before-statement#1",
    ]
    assert verdict["findings"][0]["lines"] == ["shopapp/tasks.py:21", "shopapp/tasks.py:21"]
