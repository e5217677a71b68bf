"""The ways to a Redis server: TLS with a user and a password, a Unix socket, Sentinel; real servers, real failovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis import Redis
from redis.sentinel import Sentinel
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness.lab.servers import Server, find_redis, redis_server
from harness.queues.rq import enqueue
from tests.outage_jobs import Steady
from tests.outages import AWAY, Listened, Steps, section, wait_until_idle
from tests.worker_jobs import Numbers
from tests.workers import ALL, OURS, PATIENCE

pytestmark = pytest.mark.process

SECRET = "hunter2"  # noqa: S105 - planted, to be looked for
USER = ("--user", "guarded", "on", f">{SECRET}", "allkeys", "allchannels", "+@all")
PORT = 6379
SERVICE = "mymaster"

BY_SENTINEL = """
import sys
from redis.sentinel import Sentinel
from harness.queues import rq
sentinel = Sentinel([(sys.argv[2], 26379)], username="guarded", password=sys.argv[3] and open(sys.argv[3]).read())
getattr(rq, sys.argv[1])(["test"], connection=sentinel.master_for("mymaster")).work()
"""


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


@pytest.mark.sample(1)
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
    # A connection that has sent no command yet has not said who it is.
    users = {client["user"] for client in connection.client_list() if client["cmd"] != "NULL"}
    assert users == {"guarded"}
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


class Group:
    """A master with a replica, and the Sentinel that watches them."""

    def __init__(self, stack: ExitStack) -> None:
        self.hosts = address(1), address(2)
        self.servers: list[Server] = []
        self._sockets: list[Any] = []
        common = ("--masteruser", "guarded", "--masterauth", SECRET, *USER)
        for host in self.hosts:
            self.servers.append(
                stack.enter_context(
                    redis_server(more=(*common, "--bind", host, "--replica-announce-ip", host))
                )
            )
            url = f"{self.servers[-1].url}?username=guarded&password={SECRET}"
            self._sockets.append(stack.enter_context(Redis.from_url(url, socket_timeout=PATIENCE)))
            self._sockets[-1].config_set("port", PORT)
        self._sockets[1].replicaof(self.hosts[0], PORT)
        while self._sockets[1].info("replication")["master_link_status"] != "up":
            pass
        self.host = address(3)
        _sentinel(stack, self.host, self.hosts[0])
        self.sentinel = Sentinel([(self.host, 26379)], username="guarded", password=SECRET)
        self._control = stack.enter_context(Redis(host=self.host, port=26379, socket_timeout=PATIENCE))
        self.connection = stack.enter_context(self.sentinel.master_for(SERVICE, socket_timeout=PATIENCE))
        while not any(
            (each["ip"], each.get("master-link-status")) == (self.hosts[1], "ok") and each["flags"] == "slave"
            for each in map(_text, self._control.execute_command("SENTINEL", "REPLICAS", SERVICE))
        ):
            pass

    def promote(self, begin: Callable[[], object]) -> None:
        """Begin a failover, and wait until Sentinel says that the replica is the master."""
        with self._control.pubsub() as said:
            said.subscribe("+switch-master")
            assert said.get_message(timeout=PATIENCE)
            begin()
            assert said.get_message(timeout=PATIENCE), "Sentinel has promoted no replica"

    def ask(self) -> None:
        """Ask Sentinel for a failover; the old master refuses writes until it is a replica of the new one."""
        for each in self._sockets:
            each.config_set("min-replicas-to-write", 1)
        self._control.execute_command("SENTINEL", "FAILOVER", SERVICE)

    def wait_until_joined(self) -> None:
        """Wait until the old master is a replica of the new one."""
        while section(self._sockets[0], "replication").get("master_link_status") != "up":
            pass  # Sentinel closes the connections of the clients, this one too

    def stop_master(self) -> None:
        """Stop the master, which hands its data over to the replica; Sentinel finds it gone."""
        self.servers[0].stop()


def _text(answer: Any) -> dict[str, str]:
    """Return what Sentinel says of a server, as text."""
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return {str(_decoded(name)): str(_decoded(value)) for name, value in pairs}


def _decoded(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _sentinel(stack: ExitStack, host: str, master: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="sentinel-"))
    settings = [
        f"bind {host}", "port 26379", f"dir {folder}", f"sentinel monitor {SERVICE} {master} {PORT} 1",
        f"sentinel auth-user {SERVICE} guarded", f"sentinel auth-pass {SERVICE} {SECRET}",
        f"sentinel down-after-milliseconds {SERVICE} 1000", f"sentinel failover-timeout {SERVICE} 20000",
    ]  # fmt: skip
    (folder / "sentinel.conf").write_text("\n".join(settings) + "\n")
    server = Server(
        f"redis://{host}:26379", folder, [str(find_redis()), str(folder / "sentinel.conf"), "--sentinel"],
        ready="+monitor master", stop=signal.SIGTERM, end=signal.SIGKILL,
    )  # fmt: skip
    stack.callback(server.close)


@pytest.mark.sample(1)
@pytest.mark.parametrize("worker_class", ["Worker", "SimpleWorker"])
@pytest.mark.parametrize("begin", [Group.ask, Group.stop_master])
def test_a_job_survives_a_failover(
    stack: ExitStack, steps: Steps, tmp_path: Path, begin: Callable[[Group], object], worker_class: str
) -> None:
    """A job at work while Sentinel promotes the replica goes on there, nothing lost or doubled; that is said once."""
    group = Group(stack)
    job = enqueue(Queue("test", connection=group.connection, serializer="json"), Steady, str(tmp_path), 6)
    (tmp_path / "password").write_text(SECRET)
    command = ["-c", BY_SENTINEL, worker_class, group.host, str(tmp_path / "password")]
    worker = Listened(command)
    stack.callback(worker.close)
    steps.do(2)
    seen = worker.shown()
    group.promote(lambda: begin(group))
    steps.allow(4)
    if begin is Group.ask:
        group.wait_until_joined()
    wait_for_end(job, worker)
    assert steps.done() == [0, 1, 2, 3, 4, 5]
    after = enqueue(Queue("test", connection=group.connection, serializer="json"), Numbers, 3)
    wait_for_end(after, worker)
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(PATIENCE)
    worker.hear_all()
    assert worker.said(AWAY) <= 1
    assert SECRET not in "\n".join([seen, *worker.lines])


def wait_for_end(job: RQJob, worker: Listened) -> None:
    """Wait until a job has ended well, by the worker's log, on the server that is the master by now."""
    worker.hear("Successfully completed")
    assert job.get_status() == JobStatus.FINISHED
