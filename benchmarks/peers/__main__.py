"""Run the orders on each peer, interrupt them, and print a table.

Usage: ``python -m benchmarks.peers [ROUNDS [WAIT [NAME]]]``: *ROUNDS* of each interruption, *WAIT* seconds that a peer
has to come back, and a part of the names of the peers to run.

*Exit* is the time from SIGTERM to the end of the worker; a worker that still runs after the grace period is killed.
*Back* is the time from the end of all its processes, when the next worker starts, to the next order. The cost of an
order is its time beyond that of a plain loop, for orders that take no time themselves.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from redis import Redis

from benchmarks.peers.queues import LOOP, PEERS, Peer, Place
from benchmarks.peers.work import DONE
from harness.errors import UsageError
from harness.lab.servers import postgresql_server, redis_server

ORDERS, SECONDS, AT = 2_000, 0.006, 700
GRACE_SECONDS = 5.0
QUICK_ORDERS, QUICK_ROUNDS = 500, 5
LOOK_SECONDS, WAIT_SECONDS = 0.01, 0.05
PATIENCE_SECONDS = 120.0

_numbers = count()


class Struck(NamedTuple):
    """Figures of one interrupted run; *exit* and *back* are None if that did not happen in time."""

    exit: float | None
    back: float | None
    repeated: int
    missing: int


class Bench:
    """Servers of a run, and a database for each worker."""

    def __init__(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        self._url = stack.enter_context(postgresql_server()).url
        self.log = folder / "workers.log"
        log = stack.enter_context(self.log.open("ab"))
        redis = stack.enter_context(redis_server()).url
        self._place = Place(self._url, redis, log)
        self._admin = sa.create_engine(self._url, isolation_level="AUTOCOMMIT")
        stack.callback(self._admin.dispose)

    def place(self) -> Place:
        """Return a new database and an empty Redis."""
        name = f"run{next(_numbers)}"
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        with Redis.from_url(self._place.redis) as redis:
            redis.flushall()
        url = self._url.replace("/postgres?", f"/{name}?")
        engine = sa.create_engine(url)
        DONE.create(engine)
        engine.dispose()
        return replace(self._place, database=url)

    def cost(self, peer: Peer) -> float:
        """Return the time in µs of an order that itself takes no time."""
        place = self.place()
        with _Rows(place) as rows:
            worker = peer.start(place, QUICK_ORDERS, 0)
            try:
                peer.enqueue(place, QUICK_ORDERS, 0)
                rows.wait(QUICK_ORDERS, PATIENCE_SECONDS)
            finally:
                _kill(worker)
            first, last = rows.ask(sa.select(sa.func.min(DONE.c.at), sa.func.max(DONE.c.at)))
        if first is None:
            raise UsageError(
                f"{peer.name} did no order; its worker said: {self.log.read_text('utf-8')[-500:]}"
            )
        return float(last - first) / (QUICK_ORDERS - 1) * 1e6

    def strikes(self, peer: Peer, number: signal.Signals, rounds: int, wait: float) -> list[Struck]:
        """Interrupt the orders in each round, but only once if they do not come back, because that takes long."""
        found = [self.strike(peer, number, wait)]
        while found[-1].back is not None and len(found) < rounds:
            found.append(self.strike(peer, number, wait))
        return found

    def strike(self, peer: Peer, number: signal.Signals, wait: float) -> Struck:
        """Interrupt the orders once, and start the next worker immediately."""
        place = self.place()
        with _Rows(place) as rows:
            worker = peer.start(place, ORDERS, SECONDS)
            try:
                peer.enqueue(place, ORDERS, SECONDS)
                rows.wait(AT, PATIENCE_SECONDS)
                exited = _end(worker, number)
                (before,) = rows.ask(sa.select(sa.func.count()).select_from(DONE))
                ended = time.time()
                worker = peer.start(place, ORDERS, SECONDS)
                back = rows.first_after(ended, wait) if before < ORDERS else None
                if back is not None:
                    rows.wait(ORDERS, PATIENCE_SECONDS)
            finally:
                _kill(worker)
            everything, different = rows.ask(
                sa.select(sa.func.count(), sa.func.count(DONE.c.number.distinct())).select_from(DONE)
            )
        return Struck(exited, back, everything - different, ORDERS - different)


class _Rows:
    """Reads which orders are done."""

    def __init__(self, place: Place) -> None:
        self._engine = sa.create_engine(place.database, isolation_level="AUTOCOMMIT")

    def __enter__(self) -> _Rows:
        self._connection = self._engine.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._engine.dispose()

    def ask(self, select: Any) -> Any:
        return tuple(self._connection.execute(select).one())

    def wait(self, number: int, seconds: float) -> None:
        """Return when this number of different orders is done, or after this number of seconds without a new one."""
        orders = sa.select(sa.func.count(DONE.c.number.distinct()))
        begun, before = time.monotonic(), 0
        while (done := self.ask(orders)[0]) < number and time.monotonic() - begun < seconds:
            if done != before:
                begun, before = time.monotonic(), done
            time.sleep(WAIT_SECONDS)

    def first_after(self, moment: float, seconds: float) -> float | None:
        """Return how long after *moment* the next order was done."""
        first = sa.select(sa.func.min(DONE.c.at)).where(DONE.c.at > moment)
        while time.time() - moment < seconds:
            (at,) = self.ask(first)
            if at is not None:
                return float(at) - moment
            time.sleep(LOOK_SECONDS)
        return None


def _family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children: list[int] = []
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        with suppress(OSError):
            children += map(int, path.read_text().split())
    return [pid, *(each for child in children for each in _family(child))]


def _kill(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none sees the end of another
            for pid in _family(worker.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        worker.wait()


def _end(worker: subprocess.Popen[bytes], number: signal.Signals) -> float | None:
    """Signal a worker, or kill all its processes; return the seconds to its exit, None if it had to be killed."""
    if number is signal.SIGKILL:
        _kill(worker)
        return None
    begun = time.monotonic()
    worker.send_signal(number)
    while time.monotonic() - begun < GRACE_SECONDS:
        if worker.poll() is not None:
            return time.monotonic() - begun
        time.sleep(LOOK_SECONDS)
    _kill(worker)
    return None


def _range(values: list[float | None], late: str) -> str:
    found = sorted(value for value in values if value is not None)
    if not found:
        return late
    shown = f"{statistics.median(found):.2f} s"
    if len(found) > 1:
        shown += f" ({found[0]:.2f} to {found[-1]:.2f})"
    return shown if len(found) == len(values) else f"{shown}, {late} {len(values) - len(found)} times"


def _numbers_of(values: list[int]) -> str:
    return f"{min(values):,}" if len(set(values)) == 1 else f"{min(values):,} to {max(values):,}"


def main(rounds: int = 3, wait: float = 60, name: str = "") -> None:
    """Measure all peers in turn, and print the table."""
    peers = [peer for peer in PEERS if name in peer.name]
    with ExitStack() as stack:
        bench = Bench(stack)
        costs: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for _ in range(QUICK_ROUNDS):
            plain = bench.cost(LOOP)
            for peer in peers:
                costs[peer.name].append(bench.cost(peer) - plain)
        struck = {
            (peer.name, number): bench.strikes(peer, number, rounds, wait)
            for number in (signal.SIGTERM, signal.SIGKILL)
            for peer in peers
        }
    print(
        f"{ORDERS:,} orders of {SECONDS * 1000:.0f} ms; signal after {AT}; plain loop {plain:.0f} µs an order\n"
    )
    print(
        "| | SIGTERM: exit | back | repeated | undone | SIGKILL: back | repeated | undone | cost an order |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for peer in peers:
        cells = [peer.name]
        for number in (signal.SIGTERM, signal.SIGKILL):
            found = struck[peer.name, number]
            if number is signal.SIGTERM:
                cells.append(_range([each.exit for each in found], f"killed after {GRACE_SECONDS:.0f} s"))
            cells.append(_range([each.back for each in found], f"not in {wait:.0f} s"))
            cells += [
                _numbers_of([each.repeated for each in found]),
                _numbers_of([each.missing for each in found]),
            ]
        low, median, high = statistics.quantiles(costs[peer.name], n=4)
        print("| " + " | ".join([*cells, f"{median:.0f} µs ({low:.0f} to {high:.0f})"]) + " |")


if __name__ == "__main__":
    given = dict(zip(("rounds", "wait", "name"), sys.argv[1:], strict=False))
    main(int(given.get("rounds", 3)), float(given.get("wait", 60)), given.get("name", ""))
