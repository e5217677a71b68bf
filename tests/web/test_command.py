"""``harness web`` and ``harness demo --web``: what is refused before anything is served, in one line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from harness.cli.app import EXTRAS
from harness.queues.history import history
from harness.queues.rq import enqueue
from tests.commands import harness, one_line
from tests.web.jobs import Typed
from tests.web.site import Client
from tests.workers import PATIENCE


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_WEB_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "give --token-file or HARNESS_WEB_TOKEN"),  # noqa: S104 - refused
        (["--host", "::"], "give --token-file or HARNESS_WEB_TOKEN"),
        (["--host", "not a host"], "give --token-file or HARNESS_WEB_TOKEN"),
        (["--token-file", "nothing"], "nothing cannot be read"),
        (["--port", "70000"], "--port"),
        (["--redis", "redis://127.0.0.1:1", "--port", "0"], "no Redis answers at redis://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_served_is_refused(arguments: list[str], told: str) -> None:
    """An open address without a token, a missing file, a port that is none and a Redis that is away are one line."""
    assert told in one_line(harness("web", *arguments))


def test_a_port_in_use_is_one_line() -> None:
    """The line names the port, and how to take another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = one_line(harness("web", "--port", str(other.getsockname()[1])))
    assert "cannot be used" in said
    assert "--port" in said


@pytest.mark.parametrize(
    ("text", "told"), [("", "is empty"), ("short", "use 16 or more"), ("\n \n", "is empty")]
)
def test_a_bad_token_is_refused(tmp_path: Path, redis_url: str, text: str, told: str) -> None:
    """A token that is empty or short is refused, and is not printed."""
    file = tmp_path / "token"
    file.write_text(text)
    said = one_line(harness("web", "--port", "0", "--redis", redis_url, "--token-file", str(file)))
    assert told in said
    assert "short" not in said


@pytest.mark.parametrize("name", ["os:path", "nothing.like:It", "tests.web.jobs:JOBS"])
def test_what_is_no_job_cannot_be_enqueued(redis_url: str, name: str) -> None:
    """``--job`` takes job classes only."""
    assert name.partition(":")[0] in one_line(
        harness("web", "--port", "0", "--redis", redis_url, "--job", name)
    )


@pytest.mark.parametrize(
    ("arguments", "told"), [((), "got no name"), (("orders", "--web"), "leave out the name")]
)
def test_the_demo_needs_a_name_or_a_page(arguments: tuple[str, ...], told: str) -> None:
    """``harness demo`` takes one of them."""
    assert told in one_line(harness("demo", *arguments))


@pytest.mark.sample(1)
@pytest.mark.parametrize("package", ["starlette", "jinja2", "uvicorn", "prometheus_client"])
def test_a_missing_package_is_named_with_its_extra(package: str) -> None:
    """Without the extra the command says how to install it, and its help works."""
    script = (
        f"import sys; sys.modules[{package!r}] = None; from harness.cli.app import main; main(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", script, "web"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    extra = EXTRAS[package]  # what the web extra needs of the cli extra is named with that one
    assert done.stderr == (
        f"harness: harness web needs {package}, which is not installed; "
        f"run pip install 'job-continuation-harness[{extra}]'\n"
    )
    helped = subprocess.run(
        [sys.executable, "-c", script, "web", "-h"], capture_output=True, text=True, check=False
    )
    assert (helped.returncode, "--demo" in helped.stdout) == (0, True)


@pytest.mark.process
def test_the_command_serves_the_page(
    broker: Redis, redis_url: str, jobs_queue: Queue, tmp_path: Path
) -> None:
    """With a token from a file and a named class, the page shows, enqueues, and ends at SIGTERM while it is viewed."""
    enqueue(jobs_queue, Typed, 3)
    token = "a token that nobody guesses"  # noqa: S105 - of this test
    (tmp_path / "token").write_text(token + "\n")
    command = [
        sys.executable, "-m", "harness", "web", "--port", "0", "--redis", redis_url, "--queue", "test",
        "--token-file", str(tmp_path / "token"), "--job", Typed.path(),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stderr is not None
        client = Client(int(process.stderr.readline().partition("127.0.0.1:")[2].partition("/")[0]))
        bearer = {"Authorization": f"Bearer {token}"}
        assert client.ask("GET", "/").status == 401
        assert "Typed(3)" in client.ask("GET", "/", bearer).text
        fields = {"class": Typed.path(), "queue": "test", "id": "made", "arg-number": "1"}
        assert client.post("/enqueue", bearer, **fields).data["ok"]
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        process.wait(PATIENCE)
    assert token not in said
    assert [each.by for each in history(broker, "made")[0]] == ["token"]
