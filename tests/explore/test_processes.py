"""Trials in several processes: the verdict of one, one process where they would disturb each other, nothing left."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.explore import explore, processes
from tests.planted import cursors, effects

ROOT = Path(__file__).parents[2]
QUICK = [cursors.CursorBeforeEffect, effects.counted_in_redis]
SAMPLE = 6
"""Number of trials of each sort: enough for more than one process."""
SECONDS = 60


def run_both_ways(*jobs: str, **variables: str) -> list[dict[str, Any]]:
    """Explore jobs in one process and in two, in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.explore.both_ways", *jobs], cwd=ROOT,
        env={**os.environ, "SAMPLE": str(SAMPLE), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_two_processes_come_to_the_verdict_of_one() -> None:
    """All of a verdict is the same, findings and their order too, and two processes were at work."""
    found = run_both_ways(*(f"{job.__module__}:{job.__qualname__}" for job in QUICK))
    for each in found:
        assert each["two"]["record"] == each["one"]["record"]
        assert each["one"]["children"] == 0
    assert [each["two"]["children"] for each in found] == [2, 2]


@pytest.mark.full
def test_a_process_stops_before_a_file_that_it_has_no_copy_of() -> None:
    """Only a recovery writes it: the parent goes on alone, and comes to the verdict of one process."""
    [found] = run_both_ways("tests.explore.late_jobs:notes_what_it_finds", SAMPLE="9")
    assert found["two"]["record"] == found["one"]["record"]
    assert found["two"]["children"] == 2


def test_one_process_explores_where_a_fork_would_copy_a_connection() -> None:
    """The application has one open to the same file: two processes on it would disturb each other."""
    [found] = run_both_ways("tests.explore.late_jobs:pays_in_two_parts", BESIDE="1")
    assert found["two"]["record"] == found["one"]["record"]
    assert found["two"]["children"] == 0


@pytest.mark.parametrize("whole_group", [False, True], ids=["SIGKILL", "SIGTERM to the group"])
def test_processes_end_with_the_one_that_forked_them(tmp_path: Path, *, whole_group: bool) -> None:
    """However the command ends, its processes end, and no copy of a database is left."""
    program = (
        "import os; from tests.explore.both_ways import children; from tests.planted import shop\n"
        "from harness.explore import Explorer; from tests.explore.late_jobs import pays_in_two_parts as job\n"
        f"shop.open_shop({str(tmp_path / 'shop.db')!r})\n"
        "def look(*_): print(*children(), flush=True); input()\n"
        "with Explorer(job, processes=2, progress=look) as explorer: explorer.run()\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pids = [int(each) for each in parent.stdout.readline().split()]
        ends = [os.pidfd_open(pid) for pid in pids]
        assert len(ends) == 2
        assert list(scratch.iterdir())
        if whole_group:
            os.killpg(parent.pid, signal.SIGTERM)
        else:
            parent.send_signal(signal.SIGKILL)
    for end in ends:
        assert select.select([end], [], [], SECONDS)[0], "it is still there"
        os.close(end)
    assert not list(scratch.iterdir())


def test_the_number_of_processes_is_checked() -> None:
    """At least one; and one by default where pytest-xdist has given a core to each of its workers."""
    for wrong in (0, -1, 1.5):
        with pytest.raises(UsageError, match="use a number of 1 or more"):
            explore(cursors.OnTheDot, processes=wrong)


def test_a_worker_of_xdist_explores_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other cores belong to the other workers; elsewhere there is one process for each core."""
    monkeypatch.setenv(processes.XDIST, "gw0")
    assert processes.usable_cores() == 1
    monkeypatch.delenv(processes.XDIST)
    assert processes.usable_cores() == len(os.sched_getaffinity(0))
