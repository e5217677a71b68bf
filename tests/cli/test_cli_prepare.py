"""The commands that check and prepare, and what holds for all commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from sqlalchemy import create_engine, inspect

from harness.cli.app import MODULES
from harness.lab.mailbox import Mailbox
from harness.queues.rq import SimpleWorker, enqueue
from tests.commands import harness, one_line
from tests.jobs import CountByIteration


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARNESS_REDIS_URL", "HARNESS_DATABASE_URL", "HARNESS_SMTP"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a database with nothing in it."""
    return f"sqlite:///{tmp_path}/demo.db"


def tables(url: str) -> set[str]:
    """Return the names of the tables there."""
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_the_help_fits_one_screen() -> None:
    """24 lines of 80 columns, with every command in it."""
    lines = harness("--help").output.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).replace(",", " ").split()
    assert set(MODULES) <= set(words)


def test_without_a_command_the_help_is_shown() -> None:
    """Line by line, as ``--help`` has it; it is bad usage all the same."""
    said = harness()
    assert (said.exit_code, said.stdout) == (2, "")
    assert said.stderr == harness("--help").output


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_command_shows_how_it_is_called(name: str) -> None:
    """The help of each has an example that calls it."""
    assert f"  harness {name}" in harness(name, "--help").output


def test_the_package_can_be_run() -> None:
    """``python -m harness`` is the same."""
    said = subprocess.run([sys.executable, "-m", "harness", "-h"], capture_output=True, text=True, check=True)
    assert said.stdout == harness("--help").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["seed", "--nonsense"], "See harness seed --help"),
        (["run", "scenarios.orders", "--interrupt"], "requires an argument. See harness run --help"),
        (["nonsense", "--interrupt"], "See harness --help"),
        (["enqueue"], "Missing argument 'NAME'"),
        (["demo", "nothing"], "'nothing' is not one of"),
        (["monitor", "--every", "0.01"], "0.01 is not in the range"),
        (["init-db"], "no database is given"),
        (["init-db", "--database", "nonsense"], "cannot be used: it cannot be parsed"),
        (["seed", "--database", "sqlite:////nowhere/x.db"], "cannot be reached"),
        (["seed", "huge", "--database", "sqlite://"], "there is no size 'huge'"),
        (
            ["seed", "--scenario", "scenarios.models", "--database", "sqlite://"],
            "'scenarios.models' is not a scenario",
        ),
        (["status", "--redis", "nonsense"], "is not a Redis URL"),
        (
            ["status", "--redis", "redis://me:secret@127.0.0.1:1"],
            "no Redis answers at redis://me:***@127.0.0.1:1",
        ),
        (["worker", "--log", "LOUD"], "use DEBUG"),
        (["interrupt", "7", "--flag", "--kill", "horse"], "choose one of"),
        (["bench", "scenarios.models"], "'scenarios.models' is not a scenario"),
        (["enqueue", "tests.jobs:plain"], "is neither a scenario nor a job"),
    ],
)
def test_what_cannot_be_done_gets_one_line(arguments: list[str], message: str) -> None:
    """Exit code 2, what was found and what is allowed, and never a password."""
    line = one_line(harness(*arguments))
    assert message in line
    assert "secret" not in line


def test_tables_are_made_filled_and_dropped(url: str) -> None:
    """init-db, seed, reset; each says what it did."""
    assert harness("init-db", "--database", url).exit_code == 0
    assert tables(url) == {"job_progress", "job_progress_shared"}
    assert "the tables of orders" in harness("init-db", "--database", url, "--demo").output
    made = harness("seed", "--orders", "30", "--customers", "3", "--mails", "4", "--database", url)
    assert (made.exit_code, "30 pending" in made.output, "mails of spring-2024: 4 pending" in made.output) == (
        0, True, True,
    )  # fmt: skip
    assert "the tables already have rows; run `harness reset` first" in one_line(
        harness("seed", "--database", url)
    )
    assert harness("reset", "--database", url, text="n\n").exit_code == 130
    assert "orders" in tables(url)
    assert harness("reset", "--database", url, "--yes").exit_code == 0
    assert tables(url) == set()


def test_seed_counts_for_scripts(url: str) -> None:
    """--json is what there is, by what and status."""
    counts = json.loads(harness("seed", "quick", "--database", url, "--json").output)
    assert (counts["orders"]["pending"], counts["mails of spring-2024"]) == (61, {"pending": 250})


def test_reset_empties_a_queue_too(url: str, real_redis: Redis, redis_url: str) -> None:
    """With --jobs, reset discards the waiting jobs."""
    harness("enqueue", "tests.jobs:CountByIteration", "3", "--redis", redis_url)
    harness("init-db", "--database", url)
    said = harness("reset", "--yes", "--jobs", "--database", url, "--redis", redis_url)
    assert (said.exit_code, "removed: 1 jobs of queue default" in said.output) == (0, True)
    assert real_redis.llen("rq:queue:default") == 0


def found(*arguments: str) -> dict[str, dict[str, str]]:
    """Return what verify found, by check."""
    return {check["name"]: check for check in json.loads(harness("verify", "--json", *arguments).output)}


def test_verify_notes_what_can_be_done_without() -> None:
    """If no server is named, no check is bad, and each note says what to do."""
    checks = found("--redis", "redis://127.0.0.1:1") | found()
    assert (checks["Python"]["state"], checks["packages"]["state"], checks["files"]["state"]) == (
        "ok",
        "ok",
        "ok",
    )
    assert checks["database"]["state"] == checks["mail"]["state"] == "note"
    assert "export HARNESS_DATABASE_URL=" in checks["database"]["mend"]
    assert all(check["mend"] for check in checks.values() if check["state"] != "ok")


def test_verify_fails_for_what_is_named_and_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, in text too."""
    monkeypatch.setenv("HARNESS_SMTP", "127.0.0.1:1")
    result = harness(
        "verify", "--redis", "redis://:secret@127.0.0.1:1", "--database", "sqlite:////nowhere/x.db"
    )
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.output.splitlines() if line.startswith("BAD")] == [
        "BAD  database", "BAD  Redis", "BAD  mail",
    ]  # fmt: skip
    assert "secret" not in result.output


def test_verify_knows_what_answers(url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database with tables, a Redis, a mail server."""
    harness("init-db", "--database", url)
    mailbox = Mailbox()
    try:
        monkeypatch.setenv("HARNESS_SMTP", mailbox.address)
        checks = found("--redis", redis_url, "--database", url)
    finally:
        mailbox.stop()
    assert {checks[name]["state"] for name in ("database", "Redis", "mail", "servers")} == {"ok"}


def test_verify_warns_of_a_redis_that_throws_keys_away(real_redis: Redis, redis_url: str) -> None:
    """A policy other than noeviction may take jobs and their progress."""
    real_redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        check = found("--redis", redis_url)["Redis"]
    finally:
        real_redis.config_set("maxmemory-policy", "noeviction")
    assert (check["state"], "allkeys-lru" in check["found"]) == ("bad", True)


def test_completion_for_shells() -> None:
    """Click's, by the line that the help shows."""
    script = subprocess.run(
        [sys.executable, "-c", "from harness.cli import main; main(prog_name='harness')"],
        env={**os.environ, "_HARNESS_COMPLETE": "bash_complete", "COMP_WORDS": "harness mon", "COMP_CWORD": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "monitor" in script.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["reset", "--yes"], ["worker", "--burst", "--kind", "simple"], ["status"], ["monitor", "--once"],
        ["explain", "nightly"],
    ],
)  # fmt: skip
def test_a_mistyped_file_is_not_made(
    command: list[str], jobs_queue: Queue, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SQLite file that is not there is one line and exit code 2; only init-db and seed make one."""
    monkeypatch.setenv("HARNESS_REDIS_URL", redis_url)
    enqueue(jobs_queue, CountByIteration, 3, options={"job_id": "nightly"})
    SimpleWorker([jobs_queue], connection=jobs_queue.connection, commands=False).work(
        burst=True, logging_level="CRITICAL"
    )
    typo = tmp_path / "typo.db"
    refused = harness(*command, "--database", f"sqlite:///{typo}")
    if command[0] == "explain":  # Redis has the progress, so that the database is not asked
        assert refused.exit_code == 0
    else:
        assert f"there is no database file {typo}; check --database" in one_line(refused)
    assert not typo.exists()


def test_verify_does_not_make_a_mistyped_file(tmp_path: Path) -> None:
    """The check of a mistyped file reports that it does not exist, and does not create it."""
    typo = tmp_path / "typo.db"
    said = harness("verify", "--database", f"sqlite:///{typo}")
    assert "there is no database file" in said.output
    assert not typo.exists()


def test_the_version() -> None:
    """--version names the distribution and its version."""
    assert harness("--version").output == f"job-continuation-harness {version('job-continuation-harness')}\n"
