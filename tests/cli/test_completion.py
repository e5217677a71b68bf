"""Completion in a shell: commands, scenarios, interruptions and ids of jobs."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from click import Context
from click.shell_completion import ShellComplete
from redis import Redis
from rq import Queue

from harness.cli import completion
from harness.cli.app import SECTIONS, main
from harness.interruptions import parse_interruption
from harness.queues.rq import enqueue
from tests.jobs import CountByIteration


def offered(*arguments: str, incomplete: str = "") -> list[str]:
    """Return what a shell offers after these words."""
    shell = ShellComplete(main, {}, "harness", "_HARNESS_COMPLETE")
    return [item.value for item in shell.get_completions(list(arguments), incomplete)]


def test_commands_are_offered_without_loading_them() -> None:
    """The names of all commands come from the help, so that completing one costs no import of a database or RQ."""
    names = [name for _, rows in SECTIONS for _, names, _ in rows for name in names.split(", ")]
    assert offered() == names
    assert offered(incomplete="re") == ["reset", "resume", "requeue", "rewind", "recover", "report"]
    script = (
        "import sys\nfrom click.shell_completion import ShellComplete\nfrom harness.cli.app import main\n"
        "ShellComplete(main, {}, 'harness', 'X').get_completions([], '')\n"
        "print(sorted({'sqlalchemy', 'rq', 'redis', 'rich'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_no_help_says_a_thing_twice() -> None:
    """No clause of a help text is repeated in it, as a careless replacement does."""
    for name in main.list_commands(Context(main)):
        command = main.get_command(Context(main), name)
        assert command is not None
        for told in (command.help or "", *(getattr(each, "help", None) or "" for each in command.params)):
            clauses = [part.strip().lower() for part in re.split(r"[.;:]\s", told) if part.strip()]
            assert len(clauses) == len(set(clauses)), f"{name}: {told}"


@pytest.mark.parametrize("command", ["run", "enqueue", "explore", "bench"])
def test_scenarios_are_offered(command: str) -> None:
    """Each command that takes a scenario offers the demo's."""
    assert offered(command) == ["scenarios.orders", "scenarios.reports", "scenarios.emails"]
    assert offered(command, incomplete="scenarios.o") == ["scenarios.orders"]


def test_interruptions_are_offered() -> None:
    """Every one that is offered is one that the command takes."""
    found = offered("run", "scenarios.orders", "--interrupt")
    assert found == list(completion.INTERRUPTIONS)
    assert [parse_interruption(name).name for name in found] == found
    assert offered("run", "scenarios.orders", "--interrupt", incomplete="kill:h") == [
        "kill:horse",
        "kill:horse@count:20",
    ]


@pytest.mark.parametrize("command", ["interrupt", "pause", "resume", "cancel", "requeue", "scale", "explain"])
def test_ids_of_jobs_are_offered(
    command: str, jobs_queue: Queue, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command that takes a job offers those of the Redis that is named, by option or variable."""
    ids = [
        enqueue(jobs_queue, CountByIteration, 3, options={"job_id": each}).id
        for each in ("ann", "anton", "bo")
    ]
    monkeypatch.setenv("HARNESS_REDIS_URL", redis_url)
    assert sorted(offered(command)) == ids
    assert sorted(offered(command, incomplete="an")) == ["ann", "anton"]
    monkeypatch.delenv("HARNESS_REDIS_URL")
    assert offered(command, "--redis", redis_url, incomplete="b") == ["bo"]


def test_completion_never_fails(broker: Redis) -> None:
    """Without a Redis, completion offers no ids and prints no error into the line that is being typed."""
    assert offered("pause", "--redis", "redis://127.0.0.1:1") == []
    assert offered("pause", "--redis", "no url") == []
