"""Effects of actions on a job, and what the history says of them; the form that enqueues a job."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from harness.cursor import decode
from harness.monitor.snapshot import Monitor
from harness.monitor.story import story
from harness.queues.history import ASKED, TTL, history, note_action
from harness.queues.rq import SimpleWorker, enqueue, keys
from harness.queues.watching import Watcher
from harness.stops import PAUSE
from harness.web.actions import ACTIONS, OFFERED
from harness.web.forms import PREFIX, BadForm, arguments_of, fields_of
from tests.jobs import Shared
from tests.web.jobs import NoArguments, Typed
from tests.web.site import Client, Site
from tests.workers import PATIENCE, finish_here


def log_of(redis: Redis, job_id: str) -> list[tuple[str, str, bool]]:
    """Return the actions in the history: name, user, whether it was refused."""
    entries = [each for each in history(redis, job_id)[0] if each.what == ASKED]
    return [(each.action, each.by, (each.reason or "").startswith("refused: ")) for each in entries]


def until_text(client: Client, page: str, text: str) -> str:
    """Return a page as soon as it has a text: a look is shared for half a second."""
    limit = time.monotonic() + PATIENCE
    while text not in (found := client.get(page).text):
        assert time.monotonic() < limit, found
    return found


def test_pause_resume_and_cancel_reach_the_job(client: Client, queue: Queue, redis: Redis) -> None:
    """A waiting job is paused, resumed, cancelled and requeued as by the commands; each is in its history."""
    job = enqueue(queue, Typed, 3)
    assert client.act("pause", job.id).data["ok"]
    assert redis.get(keys.control(job.id)) == PAUSE.encode()
    finish_here(queue)
    assert job.get_status() == "scheduled"
    assert "back in queue" in client.act("resume", job.id).data["text"]
    assert job.get_status() == "queued"
    assert client.act("cancel", job.id).data["ok"]
    finish_here(queue)
    assert job.get_status() == "canceled"
    assert client.act("requeue", job.id).data["ok"]
    finish_here(queue)
    assert job.get_status() == "finished"
    assert log_of(redis, job.id) == [
        (each, "local", False) for each in ("pause", "resume", "cancel", "requeue")
    ]


def test_a_request_that_waits_is_shown_and_can_be_taken_back(client: Client, queue: Queue) -> None:
    """A job that waits says what was requested and by whom, offers it no more, and a pause can be taken back."""
    job = enqueue(queue, Typed, 3)
    assert client.act("pause", job.id).data["ok"]
    for page in ("/", f"/job?id={job.id}"):
        text = until_text(client, page, "pause requested by local")
        assert re.findall(r'name="action" value="(\w+)"', text) == ["resume", "cancel"]
    assert client.act("resume", job.id).data["ok"]
    text = until_text(client, "/", 'value="pause"')
    assert "requested by" not in text
    assert client.act("rewind", job.id, ":0").status == 409
    assert client.act("cancel", job.id).data["ok"]
    text = until_text(client, "/", "cancel requested by local")
    assert re.findall(r'name="action" value="(\w+)"', text) == ["pause"]
    finish_here(queue)
    assert "requested by" not in until_text(client, "/", "canceled")


def test_a_refused_request_is_none(queue: Queue, redis: Redis) -> None:
    """A request that was refused does not wait; the one before it still does."""
    job = enqueue(queue, Typed, 3)
    for action, reason in (("pause", None), ("cancel", None), ("cancel", "refused: it is over")):
        note_action(redis, job.id, action, "ann", reason)
    (row,) = Monitor(Watcher(redis)).refresh().jobs
    assert (row.asked, row.asked_by) == ("pause", "ann")


def test_a_finished_job_is_rewound(client: Client, queue: Queue, redis: Redis) -> None:
    """A rewind puts the job back at the cursor that was typed; a place that is none is refused in words."""
    job = enqueue(queue, Typed, 3)
    finish_here(queue)
    for wrong in ("", ":x", "nowhere", ":[", "a:b:c"):
        assert client.act("rewind", job.id, wrong).status == 409
        assert job.get_status() == "finished"
    assert client.act("rewind", job.id, ":1").data["ok"]
    assert job.get_status() == "queued"
    finish_here(queue)
    assert job.get_status() == "finished"


@pytest.mark.parametrize("action", ["interrupt", "pause", "cancel", "requeue", "scale"])
def test_a_job_that_is_over_refuses_in_words(client: Client, queue: Queue, redis: Redis, action: str) -> None:
    """What can not be done is refused with the reason, which the history keeps; the job stays as it was."""
    job = enqueue(queue, Typed, 3)
    finish_here(queue)
    before = redis.hgetall(job.key)
    answer = client.act(action, job.id, "2")
    assert answer.status == 409
    assert not answer.data["ok"]
    assert len(answer.data["text"]) > 20
    assert log_of(redis, job.id) == [(action, "local", False), (action, "local", True)]
    assert redis.hgetall(job.key) == before
    assert not redis.exists(keys.control(job.id), keys.stop(job.id))


def test_a_job_of_another_kind_and_none_at_all_are_refused(
    client: Client, queue: Queue, redis: Redis
) -> None:
    """A plain job has no checkpoint, an unknown id no job, and an unknown action does nothing; none leaves a key."""
    plain = queue.enqueue_call("builtins.len", args=([],))
    before = redis.dbsize()
    for job_id in (plain.id, "nothing", "", "a" * 600):
        assert client.act("cancel", job_id).status == 409
    assert client.act("explode", plain.id).status == 409
    assert redis.dbsize() == before


def test_a_parallel_job_is_scaled(client: Client, queue: Queue) -> None:
    """An instance offers the number of instances on its page, and further ones are enqueued."""
    enqueue(queue, Shared, 40, 2, options={"job_id": "shared"})
    SimpleWorker([queue], connection=queue.connection).work(burst=True, max_jobs=1, logging_level="ERROR")
    assert queue.get_job_ids() == ["shared-0", "shared-1"]
    assert 'data-act="shared"' in client.get("/job?id=shared-0").text
    assert client.act("scale", "shared", "4").data["ok"]
    assert queue.get_job_ids() == ["shared-0", "shared-1", "shared-2", "shared-3"]
    finish_here(queue)


@pytest.mark.parametrize("number", ["", "x", "-1", "1.5", "9999999", "٣"])
def test_a_number_of_instances_is_checked(client: Client, queue: Queue, number: str) -> None:
    """Only a small whole number scales a job."""
    job = enqueue(queue, Typed, 3)
    assert "whole number" in client.act("scale", job.id, number).data["text"]


def test_every_action_that_is_offered_exists() -> None:
    """Each state offers actions that there are."""
    assert {each for offered in OFFERED.values() for each in offered} <= set(ACTIONS)


def test_actions_are_no_executions(queue: Queue, redis: Redis) -> None:
    """The story of a job is the same with actions in its history, and the history keeps its time to live."""
    job = enqueue(queue, Typed, 3)
    note_action(redis, job.id, "pause", "ann")
    assert 0 < redis.ttl(keys.history(job.id)) <= TTL
    finish_here(queue)
    entries, _ = history(redis, job.id)
    ttl: Any = redis.ttl(keys.history(job.id))
    note_action(redis, job.id, "requeue", "ann")
    note_action(redis, job.id, "requeue", "ann")
    assert redis.ttl(keys.history(job.id)) <= ttl
    more, _ = history(redis, job.id)
    assert [each.what for each in more] == ["asked", "start", "end", "asked", "asked"]
    told = [story(job.id, "", each, None, now=entries[-1].at + 1) for each in (entries, more)]
    assert told[0] == told[1]


VALUES: dict[str, tuple[dict[str, str], list[Any], dict[str, Any]]] = {
    "all by position": ({"number": "17", "name": "x"}, [17, "x"], {}),
    "default left out": ({"number": "17", "name": ""}, [17], {}),
    "white space": ({"number": " 17 "}, [17], {}),
    "with a sign": ({"number": "+17"}, [17], {}),
    "by name": (
        {
            "number": "1", "share": "0.25", "dry": "true", "day": "2031-05-01", "at": "2031-05-01T12:00:00+00:00",
            "amount": "0.10", "key": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "mode": "new", "ids": "[1, 2]",
            "more": '{"a": null}',
        },
        [1],
        {
            "share": 0.25, "dry": True, "day": date(2031, 5, 1), "at": datetime(2031, 5, 1, 12, tzinfo=UTC),
            "amount": Decimal("0.10"), "key": UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), "mode": "new",
            "ids": [1, 2], "more": {"a": None},
        },
    ),
    "text that is no JSON": ({"number": "1", "more": "plain"}, [1], {"more": "plain"}),
}  # fmt: skip


@pytest.mark.parametrize(("typed", "args", "kwargs"), VALUES.values(), ids=VALUES)
def test_the_form_reads_each_type(
    client: Client, queue: Queue, typed: dict[str, str], args: list[Any], kwargs: dict[str, Any]
) -> None:
    """What is typed arrives at the job as the type that its signature names."""
    fields = {f"{PREFIX}{name}": text for name, text in typed.items()}
    assert arguments_of(Typed, fields) == (args, kwargs)
    answer = client.post(
        "/enqueue", None, **{"class": Typed.path(), "queue": queue.name, "id": "one", **fields}
    )
    assert answer.data["ok"], answer.text
    job = RQJob.fetch("one", connection=queue.connection, serializer=JSONSerializer)
    found = (
        [decode(each) for each in job.args[1]],
        {name: decode(value) for name, value in job.args[2].items()},
    )
    assert found == (args, kwargs)
    assert log_of(queue.connection, "one") == [("enqueue", "local", False)]
    finish_here(queue)
    assert job.get_status() == "finished"


WRONG = [
    ("number", ""), ("number", "x"), ("number", "1.5"), ("number", "1" * 5000), ("number", "True"), ("number", "٣"),
    ("share", "x"), ("dry", "yes"), ("day", "2031-13-01"), ("at", "soon"), ("amount", "x"), ("key", "x"),
    ("mode", "old"),    ("ids", "{}"), ("ids", "[1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_the_form_refuses_other_types(client: Client, queue: Queue, name: str, text: str) -> None:
    """A value of another type is refused at its field, in words, and nothing is enqueued."""
    fields = {f"{PREFIX}number": "1", f"{PREFIX}{name}": text}
    with pytest.raises(BadForm) as refused:
        arguments_of(Typed, fields)
    assert [each.label for each in refused.value.fields if each.error] == [name]
    answer = client.post("/enqueue", None, **{"class": Typed.path(), "queue": queue.name, **fields})
    assert answer.status == 422
    assert list(answer.data["fields"]) == [f"{PREFIX}{name}"]
    assert queue.count == 0


def test_the_form_shows_what_the_signature_says(client: Client) -> None:
    """Each argument has a field with its type, its choices and its default; the cursor has none."""
    fields = {each.label: each for each in fields_of(Typed)}
    assert "cursor" not in fields
    assert "self" not in fields
    assert fields["number"].required
    assert fields["number"].input == "number"
    assert fields["name"].default == "'none'"
    assert fields["mode"].choices == ("all", "new")
    assert fields["day"].input == "date"
    text = client.get(f"/enqueue?job={Typed.path()}").text
    assert all(f'name="{PREFIX}{name}"' in text for name in fields)
    assert "It takes no arguments" in client.get(f"/enqueue?job={NoArguments.path()}").text


@pytest.mark.parametrize(
    "name", ["os:system", "tests.web.jobs:Other", "", "builtins:len", "tests.jobs:FailAt"]
)
def test_only_named_classes_are_enqueued(client: Client, redis: Redis, name: str) -> None:
    """The page imports nothing by a name in a request."""
    assert client.post("/enqueue", None, **{"class": name, "queue": "test"}).status == 409
    if name:
        assert client.get(f"/enqueue?job={name}").status == 404
    assert redis.dbsize() == 0


@pytest.mark.parametrize("job_id", ["a b", "a:b", "../x", "é", "<b>"])
def test_an_id_that_rq_refuses_is_refused(client: Client, redis: Redis, job_id: str) -> None:
    """An id with other characters is refused in words."""
    answer = client.post("/enqueue", None, **{"class": NoArguments.path(), "queue": "test", "id": job_id})
    assert answer.status == 422
    assert redis.dbsize() == 0


def test_without_classes_there_is_no_form(redis: Redis) -> None:
    """A page without --job offers no form, and refuses one that is sent."""
    with Site(redis) as site:
        client = site.client()
        assert "/enqueue" not in client.get("/").text
        assert client.get("/enqueue").status == 404
        assert client.post("/enqueue", None, **{"class": Typed.path()}).status == 409
