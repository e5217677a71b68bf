"""Steer jobs from another terminal: interrupt, pause, resume, cancel, requeue, rewind, fork, recover, scale."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import AbstractContextManager, nullcontext

import click
from redis import Redis
from rq.job import Job as RQJob

from harness.cli.completion import job_ids
from harness.cli.output import echo
from harness.cli.settings import connected, json_option, queue_at, redis_option
from harness.cli.stopping import saying
from harness.errors import UsageError
from harness.queues import rq
from harness.queues.acting import acting, terminal_user
from harness.queues.rewinding import place_of
from harness.queues.rq import steering
from harness.queues.rq.overview import Watcher
from harness.queues.ticket_jobs import KINDS, TicketJob, ticket_of

SIGNALS = ("TERM", "INT")
VICTIMS = ("horse", "worker")


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@click.option("--flag", is_flag=True, help="Ask through Redis, on any machine; the default.")
@click.option(
    "--signal",
    "signal_name",
    type=click.Choice(SIGNALS),
    help="Send this signal to its worker, as a deploy does.",
)
@click.option(
    "--kill",
    "victim",
    type=click.Choice(VICTIMS),
    help="Send SIGKILL to the process of the job, or to its worker.",
)
@click.option("--reason", default="requested", show_default=True, help="With --flag.")
@redis_option
def interrupt(
    *, job_id: str, flag: bool, signal_name: str | None, victim: str | None, reason: str, redis_url: str
) -> None:
    """Interrupt a running job.

    It is requeued and continues later. JOB is an id, or the beginning of one. Signals reach workers on this
    machine only.

    \b
    harness interrupt 2f4e19
    harness interrupt 2f4e19 --signal TERM
    harness interrupt 2f4e19 --kill horse
    """
    if flag + bool(signal_name) + bool(victim) > 1:
        raise UsageError("choose one of --flag, --signal and --kill")
    with connected(redis_url) as connection:
        if (ticket := ticket_of(connection, job_id)) is not None:
            _interrupt_ticket(ticket, signal_name, victim, reason)
            return
        job = the_job(connection, job_id)
        running = steering.at_work(connection, job)
        if not (signal_name or victim):
            with steered(connection, job.id, "interrupt", reason):
                rq.request_stop(connection, job.id, reason)
            echo(f"asked job {job.id} to stop at its next checkpoint ({reason})")
            return
        worker = steering.worker_here(connection, running)
        assert worker.pid is not None  # noqa: S101 - worker_here() checks the pid
        if victim == "horse":
            pid, number = steering.horse(connection, job.id, worker.pid), signal.SIGKILL
        else:
            pid, number = worker.pid, signal.SIGKILL if victim else signal.Signals[f"SIG{signal_name}"]
        _strike(connection, job.id, pid, number, victim or "worker")


def _interrupt_ticket(ticket: TicketJob, signal_name: str | None, victim: str | None, reason: str) -> None:
    """Interrupt a job of Celery or Dramatiq."""
    connection = ticket.tickets.connection
    if signal_name or victim == "worker":
        raise UsageError(
            f"job {ticket.id} is on {ticket.kind}: use --kill horse for its process; send other signals "
            "through the supervisor of its worker"
        )
    if victim is None:
        with steered(connection, ticket.id, "interrupt", reason):
            echo(ticket.interrupt(reason))
    else:
        _strike(connection, ticket.id, ticket.pid(), signal.SIGKILL, victim)


def _refuse_front(ticket: TicketJob, *, at_front: bool) -> None:
    """Refuse the front of a queue.

    :raises UsageError: if the user chose the front.
    """
    if at_front:
        raise UsageError(
            f"job {ticket.id} is on {KINDS[ticket.kind]}, whose queues have no front; leave --front out"
        )


def _strike(connection: Redis, job_id: str, pid: int, number: signal.Signals, victim: str) -> None:
    """Send a signal to a process of a job."""
    with steered(connection, job_id, "interrupt", f"{number.name} to {victim} {pid}"):
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError) as error:
            raise UsageError(f"process {pid} of job {job_id} cannot be signalled: {error.strerror}") from None
    echo(f"sent {number.name} to {victim} {pid} of job {job_id}")


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@redis_option
def pause(job_id: str, redis_url: str) -> None:
    """Stop a job at its next checkpoint, until `harness resume`.

    \b
    harness pause 2f4e19
    """
    with connected(redis_url) as connection:
        if (ticket := ticket_of(connection, job_id)) is not None:
            with steered(connection, job_id, "pause"):
                echo(ticket.ask("pause"))
            return
        job = steering.ours(the_job(connection, job_id))
        with steered(connection, job.id, "pause"):
            steering.not_over(job)
            rq.pause(connection, job.id)
        echo(f"job {job.id} will pause at its next checkpoint, or before it starts")


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@redis_option
def resume(job_id: str, redis_url: str) -> None:
    """Resume a paused job where it stopped.

    \b
    harness resume 2f4e19
    """
    with connected(redis_url) as connection:
        if (ticket := ticket_of(connection, job_id)) is not None:
            with steered(connection, job_id, "resume"):
                echo(ticket.ask("resume"))
            return
        job = steering.ours(the_job(connection, job_id))
        with steered(connection, job.id, "resume"):
            resumed = rq.resume(queue_at(connection, job.origin), job.id)
        if resumed:
            echo(f"job {job.id} is back in queue {job.origin}")
        else:
            echo(f"job {job.id} was not paused; a pending pause request was cancelled")


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@redis_option
def cancel(job_id: str, redis_url: str) -> None:
    """End a job permanently, at its next checkpoint or before it starts; its progress is kept.

    \b
    harness cancel 2f4e19
    """
    with connected(redis_url) as connection:
        if (ticket := ticket_of(connection, job_id)) is not None:
            with steered(connection, job_id, "cancel"):
                echo(ticket.ask("cancel"))
            return
        job = steering.ours(the_job(connection, job_id))
        with steered(connection, job.id, "cancel"):
            steering.not_over(job)
            rq.cancel(connection, job.id)
        echo(f"job {job.id} will be cancelled at its next checkpoint, or before it starts")


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@click.option("--front", "at_front", is_flag=True, help="Put it before all other jobs of its queue.")
@redis_option
def requeue(job_id: str, redis_url: str, *, at_front: bool) -> None:
    """Put a failed or cancelled job back into its queue; it resumes at its cursor.

    \b
    harness requeue 2f4e19
    harness requeue 2f4e19 --front
    """
    with connected(redis_url) as connection:
        if (ticket := ticket_of(connection, job_id)) is not None:
            with steered(connection, job_id, "requeue"):
                _refuse_front(ticket, at_front=at_front)
                echo(ticket.requeue())
            return
        found = the_job(connection, job_id)
        with steered(connection, found.id, "requeue"):
            job = rq.requeue(connection, found.id, at_front=at_front)
        click.echo(f"job {job.id} is back in queue {job.origin}")


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@click.option(
    "--to", "place", metavar="PLACE", required=True, help="STEP, STEP:CURSOR, or :CURSOR for iteration."
)
@click.option("--front", "at_front", is_flag=True, help="Put it before all other jobs of its queue.")
@redis_option
def rewind(job_id: str, place: str, redis_url: str, *, at_front: bool) -> None:
    """Requeue a job that is over, to repeat a part of it.

    STEP is a step that the job has reached; later steps are repeated too. CURSOR is JSON: the work continues
    after it. Without CURSOR, the step or the iteration starts at its beginning. Effects happen a second time.

    \b
    harness rewind 2f4e19 --to price
    harness rewind 2f4e19 --to price:1200
    harness rewind 2f4e19 --to :1200
    harness rewind 2f4e19 --to :
    """
    step, cursor = place_of(place)
    with connected(redis_url) as connection:
        if (ticket := ticket_of(connection, job_id)) is not None:
            with steered(connection, job_id, "rewind", place):
                _refuse_front(ticket, at_front=at_front)
                echo(ticket.rewind(place))
            return
        found = the_job(connection, job_id)
        with steered(connection, found.id, "rewind", place):
            job = rq.rewind(connection, found.id, step=step, cursor=cursor, at_front=at_front)
        click.echo(f"job {job.id} is back in queue {job.origin}, rewound to {place}")


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@click.option(
    "--to", "place", metavar="PLACE", required=True, help="STEP, STEP:CURSOR, or :CURSOR for iteration."
)
@click.option("--id", "new_id", metavar="ID", help="Id of the new job; by default a random one.")
@click.option("--front", "at_front", is_flag=True, help="Put it before all other jobs of its queue.")
@redis_option
def fork(job_id: str, place: str, new_id: str | None, redis_url: str, *, at_front: bool) -> None:
    """Enqueue a new job that repeats a part of a job that is over.

    The new job starts with a copy of the progress at PLACE, which is written as for `harness rewind`; the old job stays
    as it is. Effects happen a second time, and idempotency keys are others.

    \b
    harness fork 2f4e19 --to price
    harness fork 2f4e19 --to :1200 --id repair-june
    """
    step, cursor = place_of(place)
    with connected(redis_url) as connection:
        if (ticket := ticket_of(connection, job_id)) is not None:
            with steered(connection, job_id, "fork", place):
                _refuse_front(ticket, at_front=at_front)
                echo(ticket.fork(place, new_id))
            return
        found = the_job(connection, job_id)
        with steered(connection, found.id, "fork", place):
            job = rq.fork(connection, found.id, step=step, cursor=cursor, new_id=new_id, at_front=at_front)
        click.echo(f"job {job.id} is in queue {job.origin}, forked from {found.id} at {place}")


@click.command()
@click.option("--keep", is_flag=True, help="Repeat until Ctrl-C.")
@redis_option
@json_option
def recover(keep: bool, redis_url: str, as_json: bool) -> None:
    """Requeue the jobs of crashed workers.

    The workers of this package do this automatically; use this command if none of them is running. A job that
    never had a lease is requeued later: use --keep, or run the command again after a while.

    \b
    harness recover
    harness recover --keep
    """
    with connected(redis_url) as connection:
        back = rq.recover(connection)
        if as_json:
            click.echo(json.dumps(back))
        else:
            echo(
                "\n".join(f"job {job_id} is back in its queue" for job_id in back)
                or "no job of a crashed worker"
            )
        if keep:
            with saying("recovered jobs are in their queues"):
                rq.keep_recovering(connection, threading.Event())


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@click.argument("instances", type=int)
@redis_option
def scale(job_id: str, instances: int, redis_url: str) -> None:
    """Change the number of instances of a parallel job. JOB is the id that was enqueued, without an instance's number.

    \b
    harness scale 2f4e19 8
    """
    with connected(redis_url) as connection:
        if (ticket := ticket_of(connection, job_id) or ticket_of(connection, f"{job_id}-0")) is not None:
            with steered(connection, ticket.id, "scale", str(instances)):
                ticket.id = job_id
                echo(ticket.scale(instances))
            return
        # RQ may have deleted the enqueued job while its instances still run.
        known = steering.fetched(connection, job_id) is not None
        with steered(connection, job_id, "scale", str(instances)) if known else nullcontext():
            rq.scale(connection, job_id, instances)
        echo(f"job {job_id} goes on with {instances} instances")


def steered(
    connection: Redis, job_id: str, action: str, reason: str | None = None
) -> AbstractContextManager[None]:
    """Return the context of an action; it writes the action and the user to the history of the job."""
    return acting(connection, job_id, action, terminal_user(), reason)


def the_job(connection: Redis, job_id: str) -> RQJob:
    """Return a job by its id, or by the beginning of an id that the monitor shows.

    :raises UsageError: if there is none, or several.
    """
    found = steering.fetched(connection, job_id)
    if found is not None:
        return found
    ids = [job.id for job in Watcher(connection).look().jobs if job.id.startswith(job_id)]
    if len(ids) == 1:
        found = steering.fetched(connection, ids[0])
        if found is not None:
            return found
    if len(ids) > 1:
        raise UsageError(f"{job_id!r} matches several jobs: {', '.join(ids[:4])}; give more characters")
    raise UsageError(f"there is no job {job_id!r}; `harness status` lists all jobs")
