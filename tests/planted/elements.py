"""Mistakes in Redis: in elements of its types, in what expires, in streams, and in jobs put into RQ's queues."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from redis.exceptions import WatchError
from rq import Queue

from tests.planted import shop


def send(invoice_id: int) -> None:
    """Send an invoice: a job that is enqueued here, and runs elsewhere."""


def counted_in_a_hash() -> None:
    """Counts in a hash that holds the time, too, and marks the invoice a moment later."""
    with shop.session() as session, shop.redis() as redis:
        redis.hset("metrics", "last run", str(time.time()))
        for invoice in shop.pending(session):
            redis.hincrby("metrics", "paid", invoice.cents)  # mistake
            shop.pay_once(session, invoice.id)


def written_to_a_hash() -> None:
    """Writes both when all is paid."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        redis.hset("metrics", mapping={"last run": str(time.time()), "paid": len(shop.all_ids(session))})


def pushed_to_a_list() -> None:
    """Pushes each invoice to a list, and marks it a moment later."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            redis.rpush("paid", f"invoice {invoice.id}")  # mistake
            shop.pay_once(session, invoice.id)


def added_to_a_set() -> None:
    """Adds each invoice to a set, which takes it once."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            redis.sadd("paid", f"invoice {invoice.id}")
            shop.pay_once(session, invoice.id)


def scored_by_increments() -> None:
    """Adds each amount to the customer's score, and marks the invoice a moment later."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            redis.zincrby("customers", invoice.cents, f"customer {invoice.customer}")  # mistake
            shop.pay_once(session, invoice.id)


def scored_by_invoice() -> None:
    """Writes each invoice's own score, which may be written again."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            redis.zadd("invoices", {f"invoice {invoice.id}": invoice.cents})
            shop.pay_once(session, invoice.id)


def added_to_a_stream() -> None:
    """Adds an entry for each invoice under a new id, and marks it a moment later."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            redis.xadd("paid", {"invoice": invoice.id})  # mistake
            shop.pay_once(session, invoice.id)


def added_to_a_stream_by_id() -> None:
    """Adds it under the invoice's id, which the stream takes once."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            with suppress(Exception):  # it is there already
                redis.xadd("paid", {"invoice": invoice.id}, id=f"{invoice.id}-1")
            shop.pay_once(session, invoice.id)


def _consume(redis: Any, first: str) -> None:
    if not redis.exists("orders"):
        with redis.pipeline() as pipeline:
            for number in range(1, 5):
                pipeline.xadd("orders", {"number": number}, id=f"{number}-1")
            pipeline.xgroup_create("orders", "shop", id="0")
            pipeline.execute()
    for start in dict.fromkeys([first, ">"]):
        while True:
            found = redis.xreadgroup("shop", "worker", {"orders": start}, count=1)
            entries = found[0][1] if found else []
            if not entries:
                break
            number, fields = entries[0]
            redis.sadd("done", fields[b"number"])
            redis.xack("orders", "shop", number)


def reads_new_entries_only() -> None:
    """Takes new entries from a group, and never those that a dead worker has taken."""
    with shop.redis() as redis:
        _consume(redis, ">")


def reads_pending_entries_first() -> None:
    """Takes what is pending first."""
    with shop.redis() as redis:
        _consume(redis, "0")


def expires_a_moment_later() -> None:
    """Sets a key, lets it expire in the next command, and leaves a key alone that is there."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            if redis.setnx(f"receipt {invoice.id}", invoice.cents):  # mistake
                redis.expire(f"receipt {invoice.id}", 86_400)
            shop.pay_once(session, invoice.id)


def expires_at_once() -> None:
    """Sets both in one command."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            redis.set(f"receipt {invoice.id}", invoice.cents, ex=86_400)
            shop.pay_once(session, invoice.id)


def _enqueue_once(queue: Queue, invoice_id: int) -> None:
    """Enqueue a job and note that in one transaction, unless that was noted."""
    noted = f"enqueued {invoice_id}"
    with queue.connection.pipeline() as pipeline, suppress(WatchError):
        pipeline.watch(noted)
        if not pipeline.exists(noted):
            pipeline.multi()
            pipeline.set(noted, 1)
            queue.enqueue(send, invoice_id, pipeline=pipeline)
            pipeline.execute()


def enqueued_before_the_mark() -> None:
    """Enqueues a job for each invoice, and marks it a moment later."""
    with shop.session() as session, shop.redis() as redis:
        queue = Queue("mail", connection=redis)
        for invoice in shop.pending(session):
            queue.enqueue(send, invoice.id)  # mistake
            shop.pay_once(session, invoice.id)


def enqueued_once() -> None:
    """Enqueues it once, whatever was done before."""
    with shop.session() as session, shop.redis() as redis:
        queue = Queue("mail", connection=redis)
        for invoice in shop.pending(session):
            _enqueue_once(queue, invoice.id)
            shop.pay_once(session, invoice.id)


def enqueued_after_the_mark() -> None:
    """Marks the invoice, and enqueues the job a moment later."""
    with shop.session() as session, shop.redis() as redis:
        queue = Queue("mail", connection=redis)
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)  # mistake
            queue.enqueue(send, invoice.id)


def enqueued_for_all() -> None:
    """Enqueues a job for every invoice, paid or not, once."""
    with shop.session() as session, shop.redis() as redis:
        queue = Queue("mail", connection=redis)
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
            _enqueue_once(queue, invoice_id)
