"""2,000 pages to a server that takes 20 ms for each: one and ten at a time, and with three kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests import documents

PAGES = int(os.environ.get("HARNESS_PAGES", "2000"))
GUIDE = documents.ROOT / "docs" / "use-cases" / "many-pages.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the job of the guide."""
    for block in documents.blocks(GUIDE):
        if block.target == "shop/pages.py":
            (tmp_path / "shop").mkdir()
            (tmp_path / block.target).write_text(block.text)
    return tmp_path


@pytest.fixture
def host() -> Iterator[str]:
    """Yield the address of a server of its own."""
    command = [sys.executable, "-m", "benchmarks.page_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"127.0.0.1:{server.stdout.readline().strip()}"
        assert server.stdin is not None
        server.stdin.close()


def counts(host: str) -> dict[str, Any]:
    """Return what the server has done."""
    connection = HTTPConnection(host, timeout=30)
    connection.request("GET", "/counts")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def started(folder: Path, host: str, name: str, concurrency: int) -> subprocess.Popen[bytes]:
    """Start the job in a process of its own."""
    arguments = [host, str(PAGES), str(folder / "progress.db"), name, str(concurrency)]
    environment = os.environ | {"PYTHONPATH": f"{documents.ROOT}{os.pathsep}{folder}"}
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.send_pages", *arguments], env=environment, cwd=folder
    )


def timed(folder: Path, host: str, concurrency: int) -> float:
    """Return the seconds that the job takes from its first page to its last."""
    before = len(counts(host)["done"])
    with started(folder, host, f"timed-{concurrency}", concurrency) as process:
        while len(counts(host)["done"]) == before:
            time.sleep(0.002)
        begun = time.monotonic()
        assert process.wait() == 0
    return time.monotonic() - begun


def test_ten_at_a_time(folder: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten at a time is at least eight times as fast, and does each page once."""
    fast = [timed(folder, host, 10)]
    slow = timed(folder, host, 1)
    found = counts(host)
    assert set(Counter(found["done"]).values()) == {2}  # two jobs, so two keys a page
    with capsys.disabled():
        print(
            f"\n{PAGES} pages: 1 at a time {slow:.1f} s, 10 at a time {fast[0]:.1f} s, {slow / fast[0]:.1f} x"
        )
        print(f"requests {found['requests']}, refused {found['refused']}")


def test_killed_three_times(folder: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """After three SIGKILLs no page is lost, and none is done twice."""
    for kill in range(1, 5):
        with started(folder, host, "killed", 10) as process:
            if kill < 4:
                while len(counts(host)["done"]) < kill * PAGES // 4:
                    time.sleep(0.005)
                os.kill(process.pid, signal.SIGKILL)
            else:
                assert process.wait() == 0
    found = counts(host)
    done = Counter(found["done"])
    lost, doubled = (
        [page for page in range(PAGES) if not done[page]],
        [page for page in done if done[page] > 1],
    )
    again = found["requests"] - found["refused"] - PAGES
    with capsys.disabled():
        print(f"\nkilled 3 times: lost {len(lost)}, doubled {len(doubled)}; {again} pages were sent again")
    assert (lost, doubled) == ([], [])
