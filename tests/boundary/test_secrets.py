"""Passwords in URLs: never in output, logs, records or process lists."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from harness.boundary.urls import reason, shown
from harness.interruptions import parse_interruption
from harness.lab import Lab
from harness.lab.processes import ProcessTrial
from scenarios import orders
from tests import worker_jobs
from tests.commands import harness
from tests.workers import PATIENCE, SPAWN

SECRET = "hunter2"  # noqa: S105 - planted, to be looked for

REDIS_URLS = [
    f"redis://:{SECRET}@127.0.0.1:1/0",
    f"redis://u:{SECRET}@127.0.0.1:1",
    f"redis://{SECRET}@127.0.0.1:1",
    f"redis://127.0.0.1:1/0?password={SECRET}",
    f"redis://127.0.0.1:1/0?%70assword={SECRET}",
    f"rediss://127.0.0.1:1/0?username=u&password={SECRET}",
    f"redis://:{SECRET}@127.0.0.1:xx/0",
    f"redis://:a@{SECRET}@127.0.0.1:1/0",
    f"redis://:{SECRET}/more@127.0.0.1:1/0",
    f"redis://:{SECRET}?more@127.0.0.1:1/0",
    f"redis://:{SECRET}#more@127.0.0.1:1/0",
    f"redis://:{SECRET}@[::1/0",
    f"unix://:{SECRET}@/run/no.sock",
    f"unix:///run/no.sock?password={SECRET}",
    f"redis:// u:{SECRET}@127.0.0.1:1",
    f"redis://:%68unter2{SECRET}@127.0.0.1:1",
    f"reddis://:{SECRET}@127.0.0.1:1/0",
    f"redis://:{SECRET}@127.0.0.1:1/notanumber",
    f"{SECRET}",
]
DATABASE_URLS = [
    f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://127.0.0.1:1/db?password={SECRET}",
    f"postgresql+psycopg://u:{SECRET}@127.0.0.1:xx/db",
    f"postgresql+psycopg://127.0.0.1:1/db?unknown={SECRET}",
    f"postgresql+nodriver://u:{SECRET}@h/db",
    f"garbage:{SECRET}@",
    f"{SECRET}",
]


@pytest.mark.sample(5)
@pytest.mark.parametrize("url", REDIS_URLS)
@pytest.mark.parametrize(
    "command",
    [
        ["status", "--redis"],
        ["verify", "--redis"],
        ["enqueue", "scenarios.orders", "--redis"],
        ["run", "scenarios.orders", "--broker"],
    ],
    ids=" ".join,
)
def test_no_command_prints_the_password_of_a_redis_url(command: list[str], url: str) -> None:
    """A command that cannot use a URL of any form reports that without the password."""
    result = harness(*command, url)
    assert result.exit_code in {1, 2}, result.output
    assert isinstance(result.exception, SystemExit)  # no traceback
    assert SECRET not in result.output + result.stderr


@pytest.mark.sample(3)
@pytest.mark.parametrize("url", DATABASE_URLS)
@pytest.mark.parametrize(
    "command",
    [["init-db", "--database"], ["verify", "--database"], ["run", "scenarios.orders", "--database"]],
    ids=" ".join,
)
def test_no_command_prints_the_password_of_a_database_url(command: list[str], url: str) -> None:
    """A command that cannot use a URL of any form reports that without the password."""
    result = harness(*command, url)
    assert result.exit_code in {1, 2}, result.output
    assert isinstance(result.exception, SystemExit)
    assert SECRET not in result.output + result.stderr


@pytest.mark.parametrize("url", [*REDIS_URLS, *DATABASE_URLS])
def test_a_shown_url_has_no_secret(url: str) -> None:
    """A shown URL and the reason of an error about it contain no secret, even if the error quotes the URL."""
    assert SECRET not in shown(url)
    assert SECRET not in reason(ValueError(f"cannot use {url}"), url)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://cache:6379/1", "redis://cache:6379/1"),
        (f"redis://u:{SECRET}@cache:6379/1", "redis://u:***@cache:6379/1"),
        ("sqlite:///some folder/demo.db", "sqlite:///some folder/demo.db"),
        ("postgresql://u@/db?host=/run/pg", "postgresql://***@/db?host=/run/pg"),
        (f"redis://h?db=1&password={SECRET}", "redis://h?db=1&password=***"),
    ],
)
def test_a_shown_url_still_says_where_it_leads(url: str, safe: str) -> None:
    """Host, port, path and harmless parameters stay, so that a reader knows which server is meant."""
    assert shown(url) == safe


@pytest.fixture
def protected(broker: Redis, redis_url: str) -> Iterator[str]:
    """Yield the URL of the Redis server for a user who has a password."""
    broker.acl_setuser(
        "guarded", enabled=True, passwords=[f"+{SECRET}"], keys="*", channels="*", categories=["+@all"]
    )
    yield redis_url.replace("unix://", f"unix://guarded:{SECRET}@")
    broker.acl_deluser("guarded")


def test_a_spawned_work_horse_shows_no_password(protected: str, broker: Redis, tmp_path: Path) -> None:
    """The command lines of a SpawnWorker and its horse, and the worker's log, do not contain the Redis password."""
    queue = Queue("test", connection=broker, serializer="json")
    queue.enqueue(worker_jobs.command_lines)
    environment = {**os.environ, "RQ_REDIS_URL": protected}
    log = tmp_path / "log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "rq.cli", "worker", "-w", SPAWN, "--burst", "test"],
            stdout=output, stderr=output, env=environment,
        )  # fmt: skip
        assert worker.wait(PATIENCE) == 0
    lines = json.loads(broker.lrange("lines", 0, 0)[0])
    assert any("main_work_horse" in line for line in lines["commands"]), (
        "the horse is not among the processes seen"
    )
    assert SECRET not in str(lines)
    assert SECRET not in log.read_text()


def test_the_processes_and_the_record_of_a_trial_show_no_password(protected: str, tmp_path: Path) -> None:
    """The command lines of a trial's processes and its record do not contain the password of its broker."""
    seen: list[str] = []
    with Lab(tmp_path, size="tiny", broker=protected) as lab, lab.prepared(orders.scenario, "steps") as trial:
        assert isinstance(trial, ProcessTrial)
        trial.disturb = lambda worker, _: seen.append(_command_line(worker.pid))
        record = trial.run(parse_interruption("kill:horse@count:3"))
    assert any("harness.lab.worker" in line for line in seen)
    assert SECRET not in str(seen)
    assert SECRET not in json.dumps(record)


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
