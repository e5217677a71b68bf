"""Demo on the page: one job in its three forms, each with its own database and worker, to kill with the mouse."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis
from rq import Queue, Retry, worker_registration
from rq.serializers import JSONSerializer
from sqlalchemy.exc import SQLAlchemyError

from harness.boundary.environment import variables
from harness.errors import UsageError
from harness.lab.fork_server import Child, ForkServer
from harness.lab.parent_pipe import ParentPipe
from harness.lab.processes import kill_both
from harness.queues import rq
from harness.queues.history import note_action
from harness.queues.periodic import SETTING
from harness.queues.rq.places import fetch
from harness.scenario import Effects
from harness.web.performer import CONFIG, Config, horse_key

if TYPE_CHECKING:
    from harness.lab.mailbox import Mailbox
    from harness.monitor.snapshot import JobRow
    from harness.scenario import Scenario

ITEMS, PACE = 150, 0.4
"""Number of orders, and duration of each in seconds."""

RECOVER_SECONDS = 3.0
"""``HARNESS_RECOVER_SECONDS`` of the demo's workers where no worker can see that a process is gone; 15 by default."""

GRACE_SECONDS = 3.0
"""Seconds between SIGTERM and SIGKILL of the demo's deploy."""

LOOK_SECONDS = 0.02
RETRIES = 3
"""Number of times that RQ starts the plain loop again."""

TITLES = {
    "plain": ("The plain loop", "The ordinary loop. RQ starts it again at order 1."),
    "steps": ("In steps", "A named step with a cursor. It continues after the last order."),
    "iteration": ("By iteration", "An enumerator with a cursor. It continues after the last order."),
}
DONE = {
    "start": "started", "horse": "killed the work horse", "worker": "killed the worker",
    "both": "killed the worker and its work horse", "term": "deploy: sent SIGTERM to the worker",
}  # fmt: skip
"""Actions with their messages."""


@dataclass(frozen=True)
class LaneView:
    """State of a form of the job on the page.

    :ivar kind: ``good``, ``polite``, ``harsh`` or empty. :ivar alive: whether a process works on it.
    :ivar share: per cent of the items that are paid. :ivar twice_share: of those that are paid twice.
    """

    form: str
    title: str
    about: str
    state: str
    kind: str
    alive: bool
    items: int
    paid: int
    share: float
    twice_share: float
    words: str
    verdict: str


class Lane:
    """One form, with its latest run.

    :ivar url: of its database. :ivar kill_at: time of the SIGKILL of a deploy, on the monotonic clock.
    :ivar strikes: kills and deploys of this run. :ivar struck: pid of the work horse at the latest of them.
    """

    def __init__(self, form: str) -> None:
        self.form, self.runs, self.workers = form, 0, 0
        self.url, self.job_id = "", ""
        self.pipe: ParentPipe | None = None
        self.worker: Child | None = None
        self.kill_at: float | None = None
        self.effects: Effects | None = None
        self.strikes: list[str] = []
        self.struck: int | None = None


class Stage:
    """The demo; a context manager that removes its files and processes.

    :param scenario: the job. :param broker: URL of a Redis of the demo's own. :param folder: for databases and logs.
    """

    def __init__(
        self, scenario: Scenario, broker: str, folder: Path, *, items: int = ITEMS, pace: float = PACE
    ) -> None:
        self._scenario, self._broker, self._folder = scenario, broker, folder
        self._items, self._pace = items, pace
        self._connection = Redis.from_url(broker)
        self._lanes = {form: Lane(form) for form in scenario.form_names}
        module = getattr(scenario.forms["plain"], "__module__", "")
        self._processes = ForkServer("harness.web.performer", "rq.worker", "rq.executions", module)
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="harness-stage")
        self._template = folder / "orders.db"

    hint = (
        f"{ITEMS} orders, {PACE:g} s each. Blue: orders paid. Orange: orders paid twice. The horse is the "
        "process of the job; its worker starts one for each job. If both are killed, the next worker "
        "resumes the job immediately, because it sees that their processes are gone. On another machine "
        f"that takes 15 s. Deploy: SIGTERM, and SIGKILL {GRACE_SECONDS:g} s later."
    )

    def __enter__(self) -> Stage:
        with self._at(f"sqlite:///{self._template}"):
            self._scenario.fill(f"orders={self._items}")
            self._scenario.close()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        with self._lock:
            for lane in self._lanes.values():
                self._clear(lane)
            self._processes.close()
            self._scenario.close()
            self._connection.close()

    def act(self, action: str, form: str, by: str) -> str:
        """Start a form, or end its processes; return a message.

        :param action: ``start``, ``horse``, ``worker``, ``both`` or ``term``. :param by: user.
        :raises UsageError: if there is no such process.
        """
        lane = self._lanes.get(form)
        if lane is None or action not in DONE:
            raise UsageError(f"the demo has no {action!r} of {form!r}; use {', '.join(DONE)}")
        with self._lock:
            if action == "start":
                self._start(lane)
            else:
                self._strike(lane, action)
            note_action(self._connection, lane.job_id, DONE[action], by)
        return f"{TITLES[form][0]}: {DONE[action]}"

    def view(self, rows: Mapping[str, JobRow]) -> list[LaneView]:
        """Return the current states of the forms.

        :param rows: jobs by id from the latest read.
        """
        with self._lock:
            return [self._view(lane, rows.get(lane.job_id)) for lane in self._lanes.values()]

    def _view(self, lane: Lane, row: JobRow | None) -> LaneView:
        state = "ready" if not lane.job_id else row.state if row is not None else "queued"
        horse = self._horse(lane) if state == "running" else None
        alive = horse is not None
        if state == "running" and not alive:
            state = "crashed"
        if lane.job_id:
            lane.effects = self._judge(lane) or lane.effects
        effects = lane.effects or Effects(lost=self._items, duplicated=0)
        twice, paid = effects.duplicated, self._items - effects.lost
        words = f"{paid:,} of {self._items:,} orders paid" + (f", {twice:,} twice" if twice else "")
        back = lane.strikes if alive and horse != lane.struck else []
        kind, verdict = _verdict(lane.form, state, effects, self._items, back)
        title, about = TITLES[lane.form]
        share = 100 / self._items
        return LaneView(
            lane.form, title, about, state, kind, alive, self._items, paid, share * paid, share * twice, words, verdict
        )  # fmt: skip

    def _judge(self, lane: Lane) -> Effects | None:
        with self._at(lane.url), suppress(SQLAlchemyError):  # a busy database keeps the previous figures
            return self._scenario.judge(_NO_MAILBOX)
        return None

    @contextmanager
    def _at(self, url: str) -> Iterator[None]:
        with self._lock, variables(HARNESS_DATABASE_URL=url):
            yield

    def _start(self, lane: Lane) -> None:
        """Begin a run with fresh data; the previous run is deleted."""
        self._clear(lane)
        lane.runs += 1
        path = self._folder / f"{lane.form}-{lane.runs}.db"
        shutil.copyfile(self._template, path)
        lane.url, lane.job_id, lane.effects = f"sqlite:///{path}", f"{lane.form}-{lane.runs}", None
        lane.strikes, lane.struck = [], None
        lane.pipe = ParentPipe()
        queue = Queue(lane.form, connection=self._connection, serializer=JSONSerializer)
        chosen = self._scenario.forms[lane.form]
        with self._at(lane.url):
            if lane.form == "plain":
                queue.enqueue_call(
                    chosen, args=(self._scenario.arguments(),), job_id=lane.job_id, timeout=-1,
                    retry=Retry(max=RETRIES), description="the plain loop",
                )  # fmt: skip
            else:
                rq.enqueue(queue, chosen, options={"job_id": lane.job_id, "timeout": -1})
        self._employ(lane)

    def _clear(self, lane: Lane) -> None:
        """End the processes of a lane, and remove its job and its database."""
        if lane.pipe is not None:
            lane.pipe.close()
        if lane.worker is not None:
            lane.worker.wait()
            self._sign_off(lane)
        lane.pipe = lane.worker = lane.kill_at = None
        job = fetch(self._connection, lane.job_id) if lane.job_id and not self._ending.is_set() else None
        if job is not None:
            job.delete()
        if lane.url:
            self._scenario.close()
            for each in self._folder.glob(f"{lane.form}-{lane.runs}.db*"):
                each.unlink()

    def _sign_off(self, lane: Lane) -> None:
        """Remove the workers of a lane from RQ's list, where a killed worker would stay for minutes."""
        queue = Queue(lane.form, connection=self._connection)
        if not self._ending.is_set() and (keys := worker_registration.get_keys(queue)):
            self._connection.delete(*keys)
            worker_registration.clean_worker_registry(queue)

    def _employ(self, lane: Lane) -> None:
        lane.workers += 1
        config = Config(self._broker, lane.form, f"{lane.form}-worker-{lane.workers}", self._pace)
        assert lane.pipe is not None  # noqa: S101 - the pipe is created earlier
        environment = {
            **os.environ, CONFIG: config.to_json(), SETTING: str(RECOVER_SECONDS), "HARNESS_DATABASE_URL": lane.url
        }  # fmt: skip
        with (self._folder / "workers.log").open("ab") as log:
            lane.worker = self._processes.start(
                "harness.web.performer:main", environment=environment, streams=(lane.pipe.theirs, log, log)
            )

    def _horse(self, lane: Lane) -> int | None:
        """Return the pid of the process of a lane's job, if it still runs."""
        text = self._connection.get(horse_key(lane.job_id))
        if text is None:
            return None
        pid = int(text)
        # A zombie has ended, but its worker has not reaped it yet.
        with suppress(OSError):
            return pid if _runs(pid) else None
        return None

    def _strike(self, lane: Lane, action: str) -> None:
        horse, worker = self._horse(lane) if lane.job_id else None, lane.worker
        if horse is None or worker is None:
            raise UsageError(
                f"{TITLES[lane.form][0]} is not at work now; wait until it is back, or start it again"
            )
        lane.strikes.append("deploy" if action == "term" else "kill")
        lane.struck = horse
        if action == "term":
            worker.terminate()
            lane.kill_at = time.monotonic() + GRACE_SECONDS
            return
        if action == "both":
            kill_both(worker.pid, horse)
        elif action == "worker":
            worker.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(horse, signal.SIGKILL)

    def _supervise(self) -> None:
        """Restart each worker that has ended, as systemd or Kubernetes does."""
        while not self._ending.wait(LOOK_SECONDS):
            with self._lock:
                for lane in self._lanes.values():
                    self._look_after(lane)

    def _look_after(self, lane: Lane) -> None:
        worker = lane.worker
        if worker is None:
            return
        if worker.poll() is not None:
            lane.kill_at = None
            self._sign_off(lane)
            self._employ(lane)
        elif lane.kill_at is not None and time.monotonic() > lane.kill_at:
            lane.kill_at = None
            horse = self._horse(lane)
            worker.kill()
            if horse is not None:
                with suppress(ProcessLookupError):
                    os.kill(horse, signal.SIGKILL)


def _runs(pid: int) -> bool:
    """Return whether a process runs: it exists, and is not a zombie as far as the system reports it.

    :raises OSError: if there is none.
    """
    os.kill(pid, 0)
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def _verdict(form: str, state: str, effects: Effects, items: int, back: Sequence[str]) -> tuple[str, str]:
    """Return the colour and the sentence about a form.

    :param back: kills and deploys after which the form works again.
    """
    twice, unpaid = effects.duplicated, effects.lost
    charged = f"{twice:,} customer{'' if twice == 1 else 's'} charged twice"
    if state == "finished":
        if twice or unpaid:
            missed = f", {unpaid:,} not charged" if unpaid else ""
            return "harsh", f"{charged}{missed}. The job counts as successful, and nothing warns."
        return "good", f"All {items:,} orders were paid exactly once."
    if state in {"failed", "stopped"}:
        return "harsh", f"Given up: {unpaid:,} orders were never paid, {charged}."
    if state == "crashed":
        told = (
            "RQ waits for minutes, then begins at order 1."
            if form == "plain"
            else "The next worker takes the job."
        )
        return "harsh", f"Killed. {told}"
    if twice:
        return "harsh", f"{charged}, and it goes on."
    return _under_way(form, state, back)


def _under_way(form: str, state: str, back: Sequence[str]) -> tuple[str, str]:
    """Return the colour and the sentence about a form without a mistake."""
    if not back:
        told = {"ready": "Press Start, then kill it.", "running": "Running. Kill it."}
        return "", told.get(state, "It waits for its worker.")
    if form == "plain":
        return "harsh", "Back at order 1. It does not know who has paid."
    return "good", f"Back at work after {_counts(back)}. No order was paid twice."


def _counts(strikes: Sequence[str]) -> str:
    """Return the text about the number of kills and deploys."""
    counted = ((each, strikes.count(each)) for each in ("kill", "deploy"))
    return " and ".join(f"{number} {each}{'s' * (number > 1)}" for each, number in counted if number)


class _NoMailbox:
    """Mailbox of a job without mail."""


_NO_MAILBOX: Mailbox = _NoMailbox()  # type: ignore[assignment]  # orders are judged by their tables alone
