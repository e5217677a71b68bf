"""The ways to a Redis server: TLS with a user and a password, and a Unix socket, on real servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from harness.lab.servers import Server, redis_server
from harness.queues.rq import enqueue
from tests.outage_jobs import Steady
from tests.outages import AWAY, Listened, Steps, wait_until_idle
from tests.worker_jobs import Numbers
from tests.workers import ALL, OURS, PATIENCE

pytestmark = pytest.mark.process

SECRET = "hunter2"  # noqa: S105 - planted, to be looked for
USER = ("--user", "guarded", "on", f">{SECRET}", "allkeys", "allchannels", "+@all")
PORT = 6379


class Link(NamedTuple):
    """A way to a server, and the server."""

    server: Server
    url: str


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Yield what ends the servers and workers of a test."""
    with ExitStack() as made:
        yield made


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Steps]:
    """Yield what leads a job in this test's folder."""
    with closing(Steps(tmp_path)) as made:
        yield made


def address(number: int) -> str:
    """Return a loopback address that no other process of this machine uses: it is made of the process's id."""
    return f"127.{64 + number}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


def over_tls(stack: ExitStack, folder: Path) -> Link:
    """Start a server that listens for TLS alone, with a certificate made here, and a user with a password."""
    certificate, key, host = folder / "certificate.pem", folder / "key.pem", address(0)
    subprocess.run(
        [  # noqa: S607 - the system's
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
            "-addext", f"subjectAltName=IP:{host}", "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    files = (
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(certificate),
    )
    options = ("--bind", host, "--tls-port", str(PORT), "--tls-auth-clients", "no")
    server = stack.enter_context(redis_server(appendonly=True, more=(*USER, *files, *options)))
    return Link(server, f"rediss://guarded:{SECRET}@{host}:{PORT}/0?ssl_ca_certs={certificate}")


def by_socket(stack: ExitStack, _: Path) -> Link:
    """Start a server that listens on a Unix socket alone, with a user and a password."""
    server = stack.enter_context(redis_server(appendonly=True, more=USER))
    return Link(server, f"{server.url}?username=guarded&password={SECRET}")


@pytest.mark.parametrize("worker_class", ALL)
@pytest.mark.parametrize("link", [over_tls, by_socket])
def test_a_job_survives_an_outage_behind_any_link(
    stack: ExitStack, steps: Steps, tmp_path: Path, link: Callable[[ExitStack, Path], Link], worker_class: str
) -> None:
    """Nothing is lost or doubled, the worker says once that Redis is away, and the password appears nowhere."""
    server, url = link(stack, tmp_path)
    connection = stack.enter_context(Redis.from_url(url, socket_timeout=PATIENCE))
    job = enqueue(Queue("test", connection=connection, serializer="json"), Steady, str(tmp_path), 6)
    os.environ["RQ_REDIS_URL"] = url
    stack.callback(os.environ.pop, "RQ_REDIS_URL")
    worker = Listened(["-m", "rq.cli", "worker", "-w", worker_class, "test"])
    stack.callback(worker.close)
    steps.do(2)
    seen = worker.shown()
    assert {client["user"] for client in connection.client_list()} == {"guarded"}
    server.stop()
    steps.allow(4)
    steps.hear("!")
    server.start()
    wait_until_idle(connection)
    assert (job.get_status(), steps.done()) == (JobStatus.FINISHED, [0, 1, 2, 3, 4, 5])
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(PATIENCE)
    worker.hear_all()
    assert worker.said(AWAY) <= 1
    assert SECRET not in "\n".join([seen, *worker.lines])


def test_commands_reach_a_redis_over_tls_and_print_no_password(stack: ExitStack, tmp_path: Path) -> None:
    """The commands of operators take a URL of a TLS server, and show it without its password."""
    _, url = over_tls(stack, tmp_path)
    connection = stack.enter_context(Redis.from_url(url))
    enqueue(Queue("test", connection=connection, serializer="json"), Numbers, 3)
    for command in (["status"], ["verify"], ["recover"], ["monitor", "--once"]):
        done = subprocess.run(
            [sys.executable, "-m", "harness", *command],
            env={**os.environ, "HARNESS_REDIS_URL": url}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert SECRET not in done.stdout + done.stderr
        assert command == ["verify"] or done.returncode == 0, done.stdout + done.stderr


def test_a_worker_with_a_decoding_url_takes_no_job(redis_url: str, broker: Redis) -> None:
    """A worker whose URL says ``decode_responses=True`` exits with advice, and leaves the job in its queue."""
    job = enqueue(Queue("test", connection=broker, serializer="json"), Numbers, 3)
    done = subprocess.run(
        [sys.executable, "-m", "rq.cli", "worker", "-u", f"{redis_url}?decode_responses=True", "-w", OURS, "test"],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode != 0
    assert "decode_responses=True" in done.stderr
    assert "make another one without it" in done.stderr
    assert job.get_status() == JobStatus.QUEUED
