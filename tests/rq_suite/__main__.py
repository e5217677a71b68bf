"""Run RQ's own tests with RQ's workers and with ours, and compare: ``python -m tests.rq_suite``.

RQ's source distribution of the installed version is downloaded with pip. Its tests need a Redis at a TCP port and flush
its databases, so each run starts a server of its own on loopback.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from harness.lab.servers import find_redis
from tests.rq_suite.differences import (
    MODES,
    Comparison,
    Difference,
    compare,
    failed,
    read_expected,
    read_outcomes,
)
from tests.workers import processes_of_session

SUITE_SECONDS = 1800
"""Limit for one run of all of RQ's tests; they take two minutes on a quiet machine."""

TEST_SECONDS = 120
"""Limit for one test, which then fails."""

TRIES = 3
"""Number of times that an unexpected failure runs alone: many of RQ's tests sleep, and fail on a busy machine."""

PLUGINS_LEFT_OUT = ("randomly", "xdist", "benchmark", "harness", "cacheprovider", "hypothesispytest")


def main() -> int:
    """Run the tests and print what differs from the expectation; return 1 if anything does."""
    parser = argparse.ArgumentParser(prog="python -m tests.rq_suite", description=__doc__)
    parser.add_argument("--sdist", type=Path, help="RQ's source distribution, instead of a download")
    parser.add_argument(
        "--outcomes", type=Path, help="folder to keep the outcomes and the output of each run in"
    )
    arguments = parser.parse_args()
    expected = read_expected()
    with tempfile.TemporaryDirectory() as folder:
        sources = unpacked(arguments.sdist or downloaded(Path(folder)), Path(folder) / "rq")
        suites = {
            mode: Suite(mode, sources, arguments.outcomes or Path(folder) / "runs", hanging(mode, expected))
            for mode in ("rq", *MODES)
        }
        with ThreadPoolExecutor(2) as pool:  # RQ's tests sleep most of the time
            outcomes = dict(zip(suites, pool.map(lambda suite: suite.run(), suites.values()), strict=True))
        theirs = outcomes.pop("rq")
        print(
            f"RQ {version('rq')}, {len(theirs)} tests; {len(failed(theirs))} fail with RQ's own workers here"
        )
        for test in sorted(failed(theirs)):
            print(f"    {test}")
        as_expected = True
        for mode, ours in outcomes.items():
            first = compare(mode, theirs, ours, expected)
            unsteady = [test for test in first.unexpected if suites[mode].passes_alone(test)]
            found = compare(mode, theirs, ours | dict.fromkeys(unsteady, "passed"), expected)
            report(mode, ours, found, unsteady, expected)
            as_expected = as_expected and found.as_expected
    return 0 if as_expected else 1


def report(
    mode: str,
    ours: dict[str, str],
    found: Comparison,
    unsteady: Sequence[str],
    expected: Sequence[Difference],
) -> None:
    """Print the result of one run."""
    print(f"\nour workers, {mode}: {len(failed(ours))} of {len(ours)} tests fail")
    for each in expected:
        if mode in each.modes:
            count = len(failed(ours) & set(each.tests))
            print(f"    {count:3} of {len(each.tests):3} expected: {each.reason}")
    groups = {
        "passed when run alone": unsteady,
        "NOT EXPECTED; correct our workers, or add them to expected.toml with a reason": found.unexpected,
        "NO LONGER DIFFERENT; remove them from expected.toml": found.gone,
        "NOT AMONG RQ'S TESTS ANY MORE; remove them from expected.toml": found.missing,
    }
    for title, tests in groups.items():
        if tests:
            print(f"  {title}:")
        for test in tests:
            print(f"    {test}")


def hanging(mode: str, expected: Sequence[Difference]) -> list[str]:
    """Return the tests that would never end in a run."""
    return [test for each in expected if each.hangs and mode in each.modes for test in each.tests]


def downloaded(folder: Path) -> Path:
    """Download RQ's source distribution of the installed version."""
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "rq", "--dest", str(folder),
        f"rq=={version('rq')}",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return next(folder.glob("rq-*.tar.gz"))


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack the tests alone: the RQ that runs is the installed one."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return next(folder.glob("rq-*"))


class Suite:
    """RQ's tests with one kind of workers.

    :param mode: ``rq`` for RQ's own workers, or one of MODES. :param sources: RQ's unpacked source distribution.
    :param folder: for the outcomes and the output. :param left_out: tests that would never end.
    """

    def __init__(self, mode: str, sources: Path, folder: Path, left_out: Sequence[str] = ()) -> None:
        self.mode, self._sources, self._folder, self._left_out = mode, sources, folder, left_out
        folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> dict[str, str]:
        """Run all tests and return their outcomes."""
        return self._run("tests", self.mode)

    def passes_alone(self, test: str) -> bool:
        """Return whether the test passes at least once when it runs alone."""
        return any(
            self._run(test, f"{self.mode}-alone").get(test) in {"passed", "skipped"} for _ in range(TRIES)
        )

    def _run(self, test: str, name: str) -> dict[str, str]:
        outcomes, output = self._folder / f"{name}.jsonl", self._folder / f"{name}.log"
        outcomes.write_text("")
        with tempfile.TemporaryDirectory() as place, redis_at_port(Path(place)) as port:
            copied(self._sources, Path(place), port)
            left_out = [part for plugin in PLUGINS_LEFT_OUT for part in ("-p", f"no:{plugin}")]
            left_out += [part for each in self._left_out for part in ("--deselect", each)]
            command = [
                sys.executable, "-m", "pytest", test, "-q", "--tb=short", "--color=no", "-p", "rq_suite.replaced",
                "--timeout", str(TEST_SECONDS), "--timeout-method", "signal",
                *left_out,
            ]  # fmt: skip
            environment = {
                **os.environ,
                "PATH": os.pathsep.join(
                    [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
                ),
                "PYTHONPATH": os.pathsep.join(
                    [place, str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
                ).rstrip(os.pathsep),
                "RQ_SUITE_WORKERS": self.mode,
                "RQ_SUITE_PORT": str(port),
                "RQ_SUITE_OUTCOMES": str(outcomes),
                "RQ_SUITE_RUNNER": str(os.getpid()),
            }
            with output.open("wb") as log:
                run_in_session(command, cwd=place, env=environment, log=log.fileno())
        found = read_outcomes(outcomes.read_text().splitlines())
        if not found:
            raise SystemExit(f"RQ's tests did not run with {name}:\n{output.read_text()[-3000:]}")
        return found


def copied(sources: Path, place: Path, port: int) -> None:
    """Copy RQ's tests, with the port of the Redis server that is theirs alone instead of the default."""
    for path in [sources / "pyproject.toml", *(sources / "tests").rglob("*")]:
        target = place / path.relative_to(sources)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            target.write_bytes(content.replace(b"127.0.0.1:6379", b"127.0.0.1:%d" % port))
    (place / "sitecustomize.py").write_text("from rq_suite import replaced\n\nreplaced.install()\n")


def run_in_session(command: Sequence[str], *, cwd: str, env: dict[str, str], log: int) -> None:
    """Run a command, and kill the processes that it leaves behind; they may have process groups of their own."""
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        process.wait(SUITE_SECONDS)
    finally:
        for pid in processes_of_session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextmanager
def redis_at_port(folder: Path) -> Iterator[int]:
    """Run a Redis server on loopback, and yield its port."""
    program = find_redis()
    if program is None:
        raise SystemExit("Redis is not installed; install it to run RQ's tests")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen([str(program), *options], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if b"ready to accept connections" in line.lower():
                    break
            yield port
        finally:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main())
