"""Two applications on one Redis, each with an ``RQ_KEY_PREFIX``: neither touches what is the other's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness.explore.redis import NOT_THE_JOBS, not_the_jobs
from harness.lab.processes import kill_both
from harness.queues.rq import recover
from harness.queues.rq.keys import LEASES
from tests import access
from tests.documents import ROOT
from tests.workers import OURS, PATIENCE, pid_of, processes_of_session, release, told, wait_for

SHOP_LEASES = b"shop:harness:leases"


class Application:
    """One of the applications: its processes have its prefix, and its Redis user may touch no other keys."""

    def __init__(self, prefix: str, url: str, folder: Path) -> None:
        self._environment = {**os.environ, "RQ_KEY_PREFIX": prefix, "HARNESS_REDIS_URL": url}
        self._url, self._log = url, folder / f"{prefix}.log"
        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str) -> str:
        """Return the output of one of our commands."""
        done = subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            env=self._environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def enqueue(self, job: str, job_id: str, *arguments: str) -> None:
        """Enqueue a toy job."""
        self.command("enqueue", f"tests.worker_jobs:{job}", *arguments, "--id", job_id, "--queue", "test")

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start a worker. RQ reads the prefix when it is imported, so the process starts from nothing."""
        with self._log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "rq.cli", "worker", "-u", self._url, "-w", OURS, *more, "test"],
                env=self._environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def close(self) -> None:
        """Kill the workers that are left, and their work horses."""
        for process in self._started:
            for pid in processes_of_session(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait(PATIENCE)


@contextmanager
def application(broker: Redis, prefix: str, url: str, folder: Path) -> Iterator[Application]:
    """Yield an application whose Redis user has the rules of the Redis guide for its prefix."""
    rule = " ".join(access.rules(prefix).values())
    with access.user(broker, f"of-{prefix}", rule, url) as own_url:
        started = Application(prefix, own_url, folder)
        try:
            yield started
        finally:
            started.close()


@pytest.mark.full
def test_two_prefixes_on_one_redis_keep_apart(broker: Redis, redis_url: str, tmp_path: Path) -> None:
    """A job of a crashed worker is restored by its own application alone, and equal job ids are two jobs."""
    broker.acl_log_reset()
    with (
        application(broker, "rq", redis_url, tmp_path) as one,
        application(broker, "shop", redis_url, tmp_path) as shop,
    ):
        for each in (one, shop):
            each.enqueue("Numbers", "nightly", "3")
        one.enqueue("UntilReleased", "slow-one")
        shop.enqueue("UntilReleased", "slow-shop")
        one.start()
        crashed = shop.start()
        for job_id in ("slow-one", "slow-shop"):
            wait_for(broker, job_id, 2)
        kill_both(crashed.pid, pid_of(broker, "slow-shop"))
        held: Any = broker.zrange(SHOP_LEASES, 0, -1)
        broker.zadd(SHOP_LEASES, dict.fromkeys(held, 1), xx=True)
        before = broker.zrange(SHOP_LEASES, 0, -1, withscores=True)
        own = broker.zrange(LEASES, 0, -1)
        assert recover(broker) == []
        assert broker.zrange(SHOP_LEASES, 0, -1, withscores=True) == before != []
        assert "slow-shop" in shop.command("recover")
        assert broker.zrange(LEASES, 0, -1) == own != []
        for job_id in ("slow-one", "slow-shop"):
            release(broker, job_id)
        assert shop.start("--burst").wait(PATIENCE) == 0
        assert one.start("--burst").wait(PATIENCE) == 0
        pid_of(broker, "slow-one")
        wait_for_end(broker, b"rq:job:slow-one")
    assert access.denied(broker) == []
    for job_id in ("slow-one", "slow-shop", "nightly"):
        for prefix in ("rq", "shop"):
            status = broker.hget(f"{prefix}:job:{job_id}", "status")
            assert status in {None, JobStatus.FINISHED.value.encode()}, (prefix, job_id)
    assert sorted(told(broker, "nightly")) == [0, 0, 1, 1, 2, 2]


def wait_for_end(broker: Redis, key: bytes) -> None:
    """Wait until a job has finished."""
    broker.config_set("notify-keyspace-events", "Kh")
    with broker.pubsub() as events:
        events.psubscribe(b"__keyspace@0__:" + key)
        while broker.hget(key, "status") != JobStatus.FINISHED.value.encode():
            assert events.get_message(timeout=PATIENCE), f"{key!r} did not finish"


@pytest.mark.full
def test_with_a_prefix_the_access_rules_of_the_guide_are_enough() -> None:
    """The rules that the guide gives for a prefix let worker, operator and web process do their work."""
    test = "tests/queues/test_connections.py::test_the_access_rules_of_the_guide_are_enough"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", test],
        env={**os.environ, "RQ_KEY_PREFIX": "shop"}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_explorer_knows_the_keys_of_a_prefix() -> None:
    """Keys of RQ and the harness are no outcome of a job; keys of the application under a chosen prefix still are."""
    assert NOT_THE_JOBS == (b"harness:", b"rq:")
    own = not_the_jobs("shop")
    for key in (
        RQJob.key_for("1").replace("rq:", "shop:", 1),
        "shop:harness:leases",
        "shop:wip:test",
        "shop:queues",
    ):
        assert key.encode().startswith(own), key
    for key in ("shop:stock:1", "shop:orders", "shop:jobs_done"):
        assert not key.encode().startswith(own), key
