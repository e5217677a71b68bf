"""A private RabbitMQ for tests and trials, in a temporary folder, on free ports of the loopback interface.

RabbitMQ's node needs Erlang's port mapper, ``epmd``, which would keep running and be shared. So each node has
its own, which ends with it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UsageError
from harness.lab.servers import Server

FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin")
"""Folders of ``rabbitmq-server`` in distributions; the script on Debian's path requires another user."""

# The shell ends both when it gets a signal. `wait` returns at the signal, and again at the end of the node.
_SCRIPT = """
{epmd} -port "$ERL_EPMD_PORT" -address 127.0.0.1 & mapper=$!
{server} & node=$!
trap 'kill -TERM $node' TERM
trap 'kill -s KILL 0' USR1
wait $node; wait $node; kill $mapper; wait
"""


def find_rabbitmq() -> Path | None:
    """Return the program of RabbitMQ from a distribution's folder or the path."""
    found = [Path(folder) / "rabbitmq-server" for folder in FOLDERS]
    if on_path := shutil.which("rabbitmq-server"):
        found.append(Path(on_path))
    return next((each for each in found if each.exists()), None)


@contextmanager
def rabbitmq_server() -> Iterator[Server]:
    """Run a RabbitMQ server until the block ends; its URL begins with ``amqp://``.

    :raises UsageError: if RabbitMQ is not installed.
    """
    program, epmd = find_rabbitmq(), shutil.which("epmd")
    if program is None or epmd is None:
        raise UsageError(
            f"RabbitMQ is not installed: no rabbitmq-server in {', '.join(FOLDERS)} nor on the path; install it"
        )
    folder = Path(tempfile.mkdtemp(prefix="rabbit-"))
    port, mapper, distribution = _free_ports(3)
    (folder / "rabbitmq.conf").write_text(
        "loopback_users.guest = true\nlog.console = true\nlog.file = false\n"
    )
    (folder / "plugins").write_text("[].\n")
    settings = {
        "HOME": folder, "RABBITMQ_NODENAME": f"harness-{port}@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": port, "RABBITMQ_DIST_PORT": distribution, "RABBITMQ_MNESIA_BASE": folder / "mnesia",
        "RABBITMQ_LOG_BASE": folder, "RABBITMQ_LOGS": "-", "RABBITMQ_CONFIG_FILE": folder / "rabbitmq",
        "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "plugins", "RABBITMQ_PID_FILE": folder / "pid",
        "RABBITMQ_CONF_ENV_FILE": folder / "none", "ERL_EPMD_PORT": mapper, "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "PATH": os.environ.get("PATH", os.defpath),
    }  # fmt: skip
    script = _SCRIPT.format(epmd=shlex.quote(epmd), server=shlex.quote(str(program)))
    server = Server(
        f"amqp://guest:guest@127.0.0.1:{port}/%2F",
        folder,
        ["setsid", "env", "-i", *(f"{name}={value}" for name, value in settings.items()), "sh", "-c", script],
        ready="server startup complete",
        stop=signal.SIGTERM,
        end=signal.SIGUSR1,  # the process that started this one may ignore SIGINT
    )
    try:
        yield server
    finally:
        server.close()


def _free_ports(number: int) -> list[int]:
    """Return ports of the loopback interface that are free now."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
