"""The commands, for jobs of Celery and Dramatiq."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.lab.queue_jobs import Count
from harness.lab.queue_suite import wait_until
from tests.commands import harness
from tests.queues.fleet import PATIENCE, Fleet, lines, wait_for_lines


@pytest.mark.parametrize("kind", ["celery", "dramatiq"])
def test_a_job_is_steered_and_explained(kind: str, fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """The commands pause, resume, interrupt, cancel and explain a job by its ticket."""
    path, fleet = tmp_path / "lines", fleets(kind, "redis")
    url = fleet.settings["TEST_REDIS"]
    fleet.enqueue(Count, str(path), 4000, 0.05, job_id="job")
    fleet.start()
    wait_for_lines(path, 2)
    assert "will pause" in harness("pause", "job", "--redis", url).output
    wait_until(lambda: fleet.state("job") == "parked", PATIENCE)
    done = len(lines(path))
    assert "resumes when" in harness("resume", "job", "--redis", url).output
    wait_for_lines(path, done + 2)
    assert "asked job job to stop" in harness("interrupt", "job", "--redis", url).output
    wait_until(lambda: fleet.queue.store.load("job").interruptions == 2, PATIENCE)
    wait_until(lambda: fleet.state("job") == "running", PATIENCE)
    assert "will be cancelled" in harness("cancel", "job", "--redis", url).output
    wait_until(lambda: fleet.state("job") == "over", PATIENCE)
    told = harness("explain", "job", "--redis", url).output
    assert 'Count("' in told
    assert "paused" in told
    assert "cancelled" in told
    assert harness("pause", "job", "--redis", url).exit_code == 2


@pytest.mark.parametrize(("kind", "name"), [("celery", "app"), ("dramatiq", "broker")])
def test_a_job_is_enqueued_on_an_app(
    kind: str, name: str, fleets: Callable[..., Fleet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`harness enqueue --app` puts a job into the queue of a Celery app or a Dramatiq broker."""
    fleet = fleets(kind, "redis")
    for variable, value in fleet.settings.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("HARNESS_REDIS_URL", "redis://localhost:1")  # exported for other commands
    done = subprocess.run(
        [
            sys.executable, "-m", "harness", "enqueue", "--app", f"tests.queues.{kind}_app:{name}", "--id", "job",
            "--queue", "slow", "--retry", "2", "--json", Count.path(), json.dumps(str(tmp_path)), "2",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["id"] == "job"
    assert fleet.state("job") == "waiting"
    stored = fleet.queue.tickets.read("job")["message"]
    assert '"slow"' in stored
    assert '"max_retries": 2' in stored


def test_an_app_that_is_none_is_refused() -> None:
    """An app that cannot be loaded, or is another object, is refused by name."""
    for name, reason in (("shop.missing:app", "cannot be loaded"), ("json:dumps", "use a Celery app")):
        result = harness("enqueue", "--app", name, Count.path(), "1", "2")
        assert result.exit_code == 2
        assert reason in result.output
