"""The wheel, installed into empty environments and used from another folder."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cli.app import MODULES
from tests.web.site import Client, until
from tests.web.test_stage import at_work, back

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]

JOBS = """
from harness import IterationJob, times


class Count(IterationJob):
    def build_enumerator(self, number, *, cursor):
        return times(number, cursor=cursor)

    def each_iteration(self, index, number):
        with open("counted.txt", "a") as file:
            file.write(f"{index}\\n")
"""

EXPLORED = """
import jobs

def test_counted_again(explore):
    verdict = explore(jobs.Count, 3, expect=None)
    assert verdict.verdict.startswith("at least once")  # a line is written again after a crash
"""

EVERY_HELP = """
import contextlib, io, json
from harness.cli.app import MODULES, main

said = {}
for name in MODULES:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            main([name, "--help"], prog_name="harness")
        except SystemExit as end:
            said[name] = end.code, text.getvalue()
print(json.dumps(said))
"""

LIVE = {"status": [], "monitor": ["--once"], "explain": ["seventeen"]}
"""Commands that draw, with their arguments; they need the extra ``cli``."""


def clean() -> dict[str, str]:
    """Return the environment without what leads Python to the clone."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder outside of the clone to use it in."""

    environment: Path
    folder: Path
    redis_url: str

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, and return what it printed."""
        return subprocess.run(
            [self.environment / "bin" / program, *arguments],
            cwd=self.folder, env={**clean(), "HARNESS_REDIS_URL": self.redis_url}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def harness(self, *arguments: str) -> str:
        """Run a command that must succeed, and return its output."""
        done = self.run("harness", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel once."""
    folder = tmp_path_factory.mktemp("wheel")
    # Two builds at once share the clone's folder build/: another process of the test run waits.
    with (ROOT / "pyproject.toml").open("rb") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    return next(folder.glob("*.whl"))


@pytest.fixture
def install(wheel: Path, tmp_path: Path, redis_url: str, real_redis: object) -> object:
    """Return the function that installs the wheel with some extras, and other packages, into an empty environment."""

    def installing(extras: str, *others: str) -> Installed:
        environment, folder = tmp_path / "environment", tmp_path / "elsewhere"
        venv.create(environment)
        _pip(
            "--python",
            str(environment / "bin" / "python"),
            "install",
            "--no-compile",
            f"{wheel}{extras}",
            *others,
        )
        folder.mkdir()
        (folder / "jobs.py").write_text(JOBS)
        return Installed(environment, folder, redis_url)

    return installing


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, env=clean(), capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" in done.stderr + done.stdout:
        missing = "no package index can be reached, which installing the wheel needs"
        (pytest.fail if os.environ.get("HARNESS_REQUIRE_SERVICES") == "1" else pytest.skip)(missing)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "extras",
    [
        "",
        pytest.param("[cli]", marks=pytest.mark.full),
        pytest.param("[test]", marks=pytest.mark.full),
        # By default the suite itself runs in an environment with these.
        pytest.param("[cli,test,prometheus,opentelemetry]", marks=pytest.mark.full),
    ],
)
def test_an_installed_wheel_works_outside_the_clone(install: object, extras: str) -> None:
    """Outside the clone each command works or names the extra that it needs, and pytest runs as without us."""
    assert callable(install)
    installed: Installed = install(extras, "pytest")
    _every_help(installed, extras)
    if "test" not in extras:  # which adds nothing that an operator uses
        _operate(installed, drawing="cli" in extras)
    empty = installed.run("pytest", "-q", "-W", "error")
    assert empty.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, empty.stdout + empty.stderr
    (installed.folder / "test_own.py").write_text("def test_own(): pass\n")
    assert "1 passed" in installed.run("pytest", "-q").stdout
    (installed.folder / "test_own.py").write_text(EXPLORED)
    assert "1 passed" in installed.run("pytest", "-q").stdout
    (installed.folder / "test_own.py").write_text("def test_own(lab): pass\n")
    said = installed.run("pytest", "-q").stdout
    assert ("1 passed" if "test" in extras else "run pip install 'job-continuation-harness[test]'") in said


@pytest.mark.full
def test_the_demo_on_the_page_needs_the_extra_web_alone(install: object) -> None:
    """The wheel with ``[web]`` serves the demo from any folder: its page is whole, and a killed job comes back."""
    assert callable(install)
    installed: Installed = install("[web]")
    _every_help(installed, "[cli,web]")
    program = str(installed.environment / "bin" / "harness")
    command = [program, "web", "--demo", "--port", "0"]
    with subprocess.Popen(command, cwd=installed.folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            port = line.partition("127.0.0.1:")[2].partition("/")[0]
            assert port, line
            client = Client(int(port))
            assert client.get("/").text.count(">Start</button>") == 3
            assert client.get("/static/app.css").status == 200
            assert client.post("/stage", action="start", lane="iteration").status == 200
            with client.events() as events:
                until(events, at_work("iteration"))
                assert client.post("/stage", action="both", lane="iteration").status == 200
                until(events, back("iteration", "1 kill"))
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
    assert process.returncode == 130


def _every_help(installed: Installed, extras: str) -> None:
    """Ask each command for its help, in one process; a command that needs another extra names it in one line."""
    done = installed.run("python", "-c", EVERY_HELP)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) == set(MODULES)
    for name, (code, text) in said.items():
        needed = {"rich": "cli", "fakeredis": "test"}.get(text.partition(" needs ")[2].partition(",")[0])
        if code == 0:
            assert f"harness {name}" in text
        else:
            assert needed is not None, text
            assert needed not in extras
            assert text.endswith(f"run pip install 'job-continuation-harness[{needed}]'\n")
            assert text.count("\n") == 1


def _operate(installed: Installed, *, drawing: bool) -> None:
    """Prepare, enqueue, work, look and steer as an operator does."""
    harness = installed.harness
    assert "harness" in harness("--help")
    harness("verify")
    harness("init-db", "--database", "sqlite:///app.db")
    assert harness("enqueue", "jobs:Count", "3", "--id", "seventeen") == "seventeen\n"
    harness("pause", "seventeen")
    harness("worker", "--burst", "--kind", "simple", "--log", "ERROR")
    harness("resume", "seventeen")
    harness("worker", "--burst", "--log", "ERROR")
    assert (installed.folder / "counted.txt").read_text() == "0\n1\n2\n"
    assert harness("recover") == "no job of a crashed worker\n"
    for name, arguments in LIVE.items():
        done = installed.run("harness", name, *arguments)
        assert (done.returncode == 0) == drawing, done.stderr
    if drawing:
        assert "seventeen" in harness("explain", "seventeen", "--database", "sqlite:///app.db")
        assert "Count completed" in harness("run", "jobs:Count", "3")
    demo = installed.run("harness", "demo", "orders", "--pace", "fast", "--embedded")
    assert demo.returncode == 2
    assert demo.stderr.count("\n") == 1
