"""The commands: exit code 0 good, 1 the verdict is bad, 2 bad usage with one line that helps."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from harness.errors import UsageError
from harness.report import comparison
from tests import two_forms
from tests.commands import harness, one_line
from tests.comparisons import ENVIRONMENT, benchmarks, run

PLAIN_SAVED = ["--form", "plain", "--durability", "on_stop()"]


def test_run_tells_of_each_trial() -> None:
    """Two lines a trial, for each form and interruption asked for, which fit 80 columns."""
    result = harness(
        "run", "scenarios.orders", "--form", "steps", "--interrupt", "count:20", "--interrupt", "every:7"
    )
    assert result.exit_code == 0
    shown = result.output.splitlines()
    assert [line.split() for line in shown[::2]] == [
        ["orders", "steps", "count:20", "exactly", "once"],
        ["orders", "steps", "every:7", "exactly", "once"],
    ]
    assert all("lost 0, duplicated 0, repeated 0" in line for line in shown[1::2])
    assert max(map(len, shown)) <= 80


def test_a_bad_verdict_is_exit_code_1() -> None:
    """The plain form, interrupted, does items twice."""
    result = harness("run", "scenarios.orders", "--form", "plain", "--interrupt", "count:20", "--json")
    assert (result.exit_code, json.loads(result.output)["verdict"]) == (1, "duplicated")


def test_run_takes_a_job_of_ones_own() -> None:
    """A job class is run inline, with its arguments as JSON."""
    result = harness("run", "tests.jobs:CountInSteps", "9", "--interrupt", "every:4")
    assert result.output.splitlines() == [
        "CountInSteps interrupted every:4", "CountInSteps interrupted every:4", "CountInSteps completed",
    ]  # fmt: skip
    result = harness("run", "tests.jobs:CountByIteration", "9", "--json")
    assert json.loads(result.output)["done"] == 9


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], ["plain", "iteration"]),
        (["explore", "--first", "--sample", "1"], ["plain", "iteration"]),
        (["bench", "--rounds", "2", "--size", "tiny"], ["to plain", "plain", "iteration"]),
    ],
)
def test_a_scenario_need_not_have_all_forms(arguments: list[str], told: list[str]) -> None:
    """Those that it has are run, in the order of the comparison."""
    result = harness(arguments[0], "tests.two_forms", *arguments[1:])
    places = [result.output.find(each) for each in told]
    assert -1 not in places, result.output
    assert places == sorted(places)
    assert "steps" not in result.output


def test_a_size_that_a_scenario_does_not_know_is_refused() -> None:
    """An unknown size is refused, even if the seed looks it up in a dict; any other error of the seed is kept."""
    rows: dict[str, None] = {"tiny": None}
    sized = replace(two_forms.scenario, seed=lambda size: rows[size])
    with pytest.raises(UsageError, match="scenario orders has no such data: there is no size 'huge'"):
        sized.fill("huge")
    broken = replace(two_forms.scenario, seed=lambda _: rows["price"])
    with pytest.raises(KeyError, match="price"):
        broken.fill("tiny")


def test_a_finding_is_repeated_as_it_was_asked_for() -> None:
    """The repeat command has the name of the scenario and its durability."""
    options = ["--form", "iteration", "--durability", "every(items=5)"]
    result = harness("explore", "scenarios.reports", *options, "--sample", "1")
    again = next(line for line in result.output.splitlines() if "again: " in line)
    assert "harness explore scenarios.reports --form iteration --size tiny --trial " in again
    assert again.endswith("--durability 'every(items=5)'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["scenarios.nothing"],
            "'scenarios.nothing' cannot be imported (No module named 'scenarios.nothing')",
        ),
        (["scenarios.models"], "'scenarios.models' is neither a scenario nor a job"),
        (["tests.jobs:Nothing"], "'tests.jobs:Nothing' cannot be found: tests.jobs has no 'Nothing'"),
        (["tests.jobs:plain"], "'tests.jobs:plain' is neither a scenario nor a job"),
        (["tests.jobs:BadCursor"], "cursor: builtins.set would not come back equal from JSON; use"),
        (["tests.jobs:CountByIteration", "9", "--interrupt", "flag"], "flag needs a worker"),
        (["scenarios.orders", "17"], "got 17 after scenarios.orders, which is a scenario and takes no"),
        (
            ["tests.jobs:CountInSteps", "--form", "plain"],
            "--form is for a scenario, and tests.jobs:CountInSteps is",
        ),
        (["tests.jobs:CountInSteps", "--broker", "redis"], "--broker is for a scenario"),
        (["tests.jobs:CountInSteps", "--pace", "0"], "--pace is for a scenario"),
        (["scenarios.orders", "--form", "fancy"], "scenario orders has no form 'fancy'; use plain"),
        (["scenarios.orders", "--interrupt", "often"], "unknown interruption 'often'; use one of"),
        (["scenarios.orders", "--interrupt", "count:1000"], "was not interrupted by count:1000"),
        (["scenarios.orders", "--pace", "-1"], "got a pace of -1.0; use seconds of 0 or more"),
        (["scenarios.orders", "--size", "huge"], "there is no size 'huge'; use one of tiny, quick, full"),
        (["scenarios.orders", "--database", "sqlite:////nowhere/x.db"], "cannot be reached"),
    ],
)
def test_what_cannot_be_run_gets_one_line(arguments: list[str], message: str) -> None:
    """Found, allowed, exit code 2."""
    result = harness("run", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("harness: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("explore", ["scenarios.orders", "17"], "a scenario and takes no arguments"),
        ("explore", ["tests.jobs:CountInSteps", "3", "--form", "steps"], "--form is for a scenario"),
        (
            "explore",
            ["tests.jobs:plain", "3", "--form", "steps"],
            "tests.jobs:plain is a plain function; leave",
        ),
        ("run", ["scenarios.orders", *PLAIN_SAVED], "--durability is for steps and iteration"),
        ("explore", ["scenarios.orders", *PLAIN_SAVED], "--durability is for steps and iteration"),
        (
            "explore",
            ["tests.jobs:plain", "3", "--durability", "on_stop()"],
            "--durability is for a job class",
        ),
    ],
)
def test_nothing_is_ignored_in_silence(command: str, arguments: list[str], message: str) -> None:
    """A command refuses an option or argument that has no meaning for the named job or scenario."""
    assert message in one_line(harness(command, *arguments))


def test_enqueue_ignores_nothing(redis_url: str, broker: Redis) -> None:
    """The command refuses arguments for a scenario and a form for a job class, and enqueues nothing then."""
    at = ["--redis", redis_url]
    assert "takes no arguments" in one_line(harness("enqueue", "scenarios.orders", "17", *at))
    refused = one_line(harness("enqueue", "tests.jobs:CountInSteps", "--form", "steps", *at))
    assert "--form is for a scenario" in refused
    assert broker.llen("rq:queue:default") == 0


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tests.jobs:Reciprocals", "3"], r"ZeroDivisionError: division by zero \(tests/jobs.py:\d+\)"),
        (["tests.jobs:FailAt", "5", "0"], r"RuntimeError: cannot do 0 \(tests/jobs.py:\d+\)"),
    ],
)
def test_a_job_that_raises_is_told_in_one_line(
    arguments: list[str], message: str, as_json: list[str], done: list[object]
) -> None:
    """The line names the error and the innermost line of the job's own code; the exit code is 1."""
    del done  # emptied before and after
    result = harness("run", *arguments, *as_json)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert re.fullmatch(f"harness: {arguments[0].partition(':')[2]} failed: {message}", line)


def test_a_password_is_not_shown() -> None:
    """An error does not show the password either."""
    result = harness("run", "scenarios.orders", "--database", "postgresql+none://me:secret@127.0.0.1:1/x")
    assert result.exit_code == 2
    assert "secret" not in result.output + result.stderr


def test_report_writes_its_files_and_prints_the_table(tmp_path: Path) -> None:
    """The command writes all files from the records, or none of them."""
    runs = harness("run", "scenarios.orders", "--interrupt", "count:20", "--json").output.splitlines()
    environment = {
        "python": "3.11", "platform": "Linux", "cpus": 2, "packages": {}, "size": "quick", "pace_s": 0.0,
        "generated": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    records = tmp_path / "records.json"
    records.write_text(json.dumps({"environment": environment, "runs": [json.loads(run) for run in runs]}))
    result = harness("report", str(records), "--to", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "steps and iteration lost nothing and did nothing twice" in " ".join(result.output.split())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json", "comparison.md", "comparison.html", "overview.svg", "timelines.svg", "damage.svg",
        "latencies.svg",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), ("{", "is not JSON"), ("{}", "holds no records")]
)
def test_report_refuses_what_is_no_record(tmp_path: Path, content: str | None, message: str) -> None:
    """A file that is no record is refused, and nothing is written."""
    if content is not None:
        (tmp_path / "records.json").write_text(content)
    result = harness("report", str(tmp_path / "records.json"), "--to", str(tmp_path / "out"))
    assert (result.exit_code, message in result.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """Write a comparison in which steps lost an item, and return its file."""
    lossy = comparison(ENVIRONMENT, [run(pattern="steps", verdict="lost", lost=1)], benchmarks())
    lossy.save(tmp_path / "lossy.json")
    return tmp_path / "lossy.json"


def test_report_takes_a_comparison_that_was_made_before(compared: Path, tmp_path: Path) -> None:
    """A comparison made earlier is accepted, and the report is the same again."""
    assert harness("report", str(compared), "--to", str(tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out" / "comparison.json").read_text() == compared.read_text()
    result = harness("report", str(compared), "--benchmarks", str(compared))
    assert (result.exit_code, "leave --benchmarks out" in result.stderr) == (2, True)


def test_report_tells_what_moved_against_an_older_one(compared: Path, tmp_path: Path) -> None:
    """Changes since the older comparison appear on the terminal and in the files."""
    older = tmp_path / "older.json"
    comparison(ENVIRONMENT, [run(pattern="steps")], benchmarks()).save(older)
    result = harness("report", str(compared), "--against", str(older), "--to", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert "worse: orders, steps, count:20" in result.output
    for name in ("comparison.md", "comparison.html"):
        assert "Changes" in (tmp_path / "out" / name).read_text()


@pytest.mark.parametrize(
    ("condition", "code", "told"),
    [
        ("steps.ratio > 1.2", 0, ""),
        ("steps.lost > 0", 1, "harness: steps.lost > 0: found 1"),
        ("steps.loss > 0", 2, "got the figure 'loss'; use one of"),
        ("steps.untried > 0", 2, "has no such figure"),
    ],
)
def test_report_is_a_gate(compared: Path, tmp_path: Path, condition: str, code: int, told: str) -> None:
    """A condition that is met gives exit code 1 and is reported; the report files are written all the same."""
    result = harness("report", str(compared), "--fail-if", condition, "--to", str(tmp_path / "out"))
    assert (result.exit_code, told in result.stderr) == (code, True)
    assert (tmp_path / "out" / "comparison.html").exists() == (code != 2)


def test_a_plain_job_in_a_worker_cannot_be_asked_to_stop(redis_url: str) -> None:
    """A polite stop goes by it; the error says what does reach it."""
    del redis_url  # for its skip where none is
    asked = [
        "run",
        "scenarios.orders",
        "--form",
        "plain",
        "--broker",
        "redis",
        "--size",
        "tiny",
        "--interrupt",
    ]
    assert "choose an earlier point" in one_line(harness(*asked, "count:20"))
    assert "cannot be asked to stop: use a kill or a signal" in one_line(harness(*asked, "count:5"))
