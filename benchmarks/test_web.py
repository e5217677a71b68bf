"""Cost of the page for the jobs: 1,000 jobs in Redis and 20 viewers, measured at a job at work."""

from __future__ import annotations

import http.client
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from rq import Queue

from benchmarks.test_monitor import ITEMS, Busy
from harness.lab.servers import redis_server
from harness.queues.rq import SimpleWorker, enqueue

JOBS, VIEWERS, ROUNDS = 1_000, 20, 5
QUEUES = 20


def run(queue: Queue) -> tuple[float, float]:
    """Return seconds of the clock and of this process for one run of the job."""
    enqueue(queue, Busy)
    begun, used = time.perf_counter(), time.process_time()
    SimpleWorker([queue], connection=queue.connection, commands=False).work(burst=True, logging_level="ERROR")
    return time.perf_counter() - begun, time.process_time() - used


def fill(connection: Redis) -> None:
    """Have a thousand jobs wait in other queues."""
    for number in range(JOBS):
        enqueue(Queue(f"q{number % QUEUES}", connection=connection, serializer="json"), Busy)


@contextmanager
def page(url: str) -> Iterator[int]:
    """Serve the page in another process, and yield its port."""
    command = [sys.executable, "-m", "harness", "web", "--port", "0", "--redis", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", serving.stderr.readline())
            assert found is not None
            yield int(found[1])
        finally:
            serving.kill()


@contextmanager
def viewed(port: int) -> Iterator[list[int]]:
    """Have viewers read the stream of the list; yield the number of bytes that each has read."""
    read, threads = [0] * VIEWERS, []
    opened: list[tuple[socket.socket, http.client.HTTPResponse, http.client.HTTPConnection]] = []

    def view(number: int, response: http.client.HTTPResponse) -> None:
        while line := response.readline():
            read[number] += len(line)

    for number in range(VIEWERS):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/events")
        sock = connection.sock  # the response takes it over
        response = connection.getresponse()
        while not response.readline().startswith(b"event: change"):
            pass
        opened.append((sock, response, connection))
        threads.append(threading.Thread(target=view, args=(number, response), daemon=True))
        threads[-1].start()
    try:
        yield read
    finally:
        for sock, _, _ in opened:
            sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for _, response, connection in opened:
            response.close()
            connection.close()


def test_the_page_does_not_slow_the_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    """The job runs in turn without the page and with 20 viewers of it; print medians, spread and bytes a viewer."""
    times: dict[str, list[tuple[float, float]]] = {"no page": [], "20 viewers": []}
    bytes_a_second = []
    with redis_server() as server, Redis.from_url(server.url) as connection, page(server.url) as port:
        fill(connection)
        queue = Queue("bench", connection=connection, serializer="json")
        run(queue)
        for _ in range(ROUNDS):
            times["no page"].append(run(queue))
            with viewed(port) as read:
                before, begun = list(read), time.perf_counter()
                times["20 viewers"].append(run(queue))
                took = time.perf_counter() - begun
                bytes_a_second += [(now - then) / took for then, now in zip(before, read, strict=True)]
    with capsys.disabled():
        for name, found in times.items():
            clock, used = zip(*found, strict=True)
            print(
                f"\n{name:12} {statistics.median(clock) / ITEMS * 1e6:7.2f} us an item by the clock, "
                f"{min(clock) / ITEMS * 1e6:.2f} to {max(clock) / ITEMS * 1e6:.2f}; "
                f"{statistics.median(used) / ITEMS * 1e6:.2f} us of the processor",
                end="",
            )
        print(f"\n{statistics.median(bytes_a_second) / 1024:.1f} KB/s a viewer")
    middle = {name: statistics.median(each for _, each in found) for name, found in times.items()}
    assert middle["20 viewers"] < 1.1 * middle["no page"]
