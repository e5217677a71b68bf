"""Commands leave out a record that cannot be read, name it, and show no control character of any record."""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue

from harness import report
from harness.boundary.logs import guard
from harness.boundary.texts import escaped, printable
from harness.errors import HarnessError, UsageError
from harness.monitor import story_picture, story_text
from harness.monitor.screen import lines, summary
from harness.monitor.snapshot import Monitor
from harness.monitor.story import story
from harness.progress import Progress
from harness.queues.history import Heartbeat, read_history
from harness.queues.rq import enqueue
from harness.queues.rq.overview import Watcher
from harness.report import made_from
from tests.boundary.test_decoding import ENTRY, HEARTBEAT
from tests.commands import harness
from tests.comparisons import benchmarks, exploration, run, sample
from tests.examples import examples
from tests.jobs import CountByIteration
from tests.mutations import mutated

NASTY = "\x1b[2J\x1b]0;x\x07\x9b31m\u202e\u2066\x00\x7f\r\x08"
"""An escape sequence for each terminal, bidirectional overrides, and other control characters."""


def assert_clean(text: str) -> None:
    """Fail if a text has a character that steers a terminal or reorders text."""
    bad = [each for each in text if each != "\n" and unicodedata.category(each) in {"Cc", "Cf", "Cs"}]
    assert not bad, (bad[:5], text[:300])


def assert_one_says(result: Any, *words: str) -> None:
    """Fail if a command did not end well, or did not say that it left something out."""
    assert result.exit_code == 0, (result.output, result.exception)
    assert_clean(result.output + result.stderr)
    for word in words:
        assert word.lower() in (result.output + result.stderr).lower(), result.output


ODD: dict[str, list[tuple[Any, ...]]] = {
    "a worker with an odd pid": [
        ("sadd", "rq:workers", "rq:worker:odd"), ("hset", "rq:worker:odd", "state", "busy"),
        ("hset", "rq:worker:odd", "pid", "x" * 9_000),
    ],
    "a worker with an odd heartbeat": [
        ("sadd", "rq:workers", "rq:worker:odd"), ("hset", "rq:worker:odd", "state", "busy"),
        ("hset", "rq:worker:odd", "last_heartbeat", "yesterday"),
    ],
    "a worker of another type": [("sadd", "rq:workers", "rq:worker:odd"), ("set", "rq:worker:odd", "x")],
    "a worker whose name is not UTF-8": [("sadd", "rq:workers", b"rq:worker:\xff")],
    "a job of another type": [("rpush", "rq:queue:test", "odd"), ("set", "rq:job:odd", "x")],
    "a job with an odd time": [
        ("rpush", "rq:queue:test", "odd"), ("hset", "rq:job:odd", "status", "queued"),
        ("hset", "rq:job:odd", "enqueued_at", "99999-01-01"),
    ],
    "a job that is not UTF-8": [
        ("rpush", "rq:queue:test", "odd"), ("hset", "rq:job:odd", "status", "queued"),
        ("hset", "rq:job:odd", "description", b"\xff"),
    ],
    "an id that is not UTF-8": [("rpush", "rq:queue:test", b"\xff")],
    "an execution with too many colons": [("zadd", "rq:wip:test", {"a:b:c": 9e9})],
    "a queue of another type": [("set", "rq:queue:odd", "x"), ("sadd", "rq:queues", "rq:queue:odd")],
    "a registry of another type": [("set", "rq:failed:test", "x")],
    "progress that is none": [("set", "harness:progress:good", "[" * 100_000)],
    "progress of another type": [("rpush", "harness:progress:good", "x")],
    "progress of a newer release": [("set", "harness:progress:good", '{"version": 99}')],
    "a history of another type": [("set", "harness:history:good", "x")],
    "a history with an odd entry": [("xadd", "harness:history:good", {"entry": "NaN"})],
}  # fmt: skip


def plant(connection: Redis, commands: list[tuple[Any, ...]]) -> None:
    """Run commands."""
    for name, *arguments in commands:
        if name == "hset":
            connection.hset(arguments[0], arguments[1], arguments[2])
        else:
            getattr(connection, name)(*arguments)


@pytest.mark.parametrize("odd", ODD)
def test_one_odd_record_is_left_out_and_named(jobs_queue: Queue, redis_url: str, odd: str) -> None:
    """`status` and `monitor` show the good job next to one odd record, name that, and keep it."""
    enqueue(jobs_queue, CountByIteration, 5, options={"job_id": "good"})
    plant(jobs_queue.connection, ODD[odd])
    for command in (["status"], ["monitor", "--once"]):
        result = harness(*command, "--redis", redis_url)
        assert_one_says(result, "good", "left out")
        data = json.loads(harness(*command, "--redis", redis_url, "--json").output)
        assert "good" in [row["id"] for row in data["jobs"]]
        assert data["left_out"]


@pytest.mark.parametrize("odd", [each for each in ODD if "progress" in each or "history" in each])
def test_explain_leaves_out_one_odd_record(jobs_queue: Queue, redis_url: str, odd: str) -> None:
    """The command shows the rest of the story and names what it left out; with nothing left it says so in a line."""
    enqueue(jobs_queue, CountByIteration, 5, options={"job_id": "good"})
    connection = jobs_queue.connection
    if "another type" not in odd or "progress" in odd:
        connection.xadd("harness:history:good", {"entry": json.dumps({**ENTRY, "epoch": 1, "died": None})})
    plant(connection, ODD[odd])
    result = harness("explain", "good", "--redis", redis_url)
    if odd == "a history of another type":
        assert (result.exit_code, result.stderr.count("left out:")) == (2, 1)
        assert "has no history" in result.stderr
    else:
        assert_one_says(result, "left out", "running")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "x"),
        ("created_at", "x"),
        ("meta", "{"),
        ("timeout", "x"),
        ("data", "x"),
        ("enqueued_at", b"\xff"),
    ],
)
def test_a_job_that_rq_cannot_read_is_an_error_in_one_line(
    jobs_queue: Queue, redis_url: str, field: str, value: Any
) -> None:
    """`explain` never ends with a traceback."""
    enqueue(jobs_queue, CountByIteration, 5, options={"job_id": "good"})
    jobs_queue.connection.hset("rq:job:good", field, value)
    for command in ("explain", "pause", "cancel", "interrupt"):
        result = harness(command, "good", "--redis", redis_url)
        assert result.exit_code in {0, 2}, result.exception
        assert len(result.stderr.splitlines()) <= 1


def test_control_characters_reach_no_terminal(jobs_queue: Queue, redis_url: str, tmp_path: Path) -> None:
    """Planted in ids, names, reasons, errors and cursors they reach no output of a command, and no picture."""
    connection = jobs_queue.connection
    queue = Queue(f"q{NASTY}", connection=connection, serializer="json")
    job_id = "odd"
    enqueue(queue, CountByIteration, 5, options={"job_id": job_id, "description": f"d{NASTY}"})
    for key in (f"j{NASTY}", job_id):
        connection.rpush(queue.key, key)
        connection.hset(f"rq:job:{key}", "status", f"s{NASTY}" if key != job_id else "queued")
        connection.hset(f"rq:job:{key}", "description", f"d{NASTY}")
        progress = Progress(
            key, job=f"m:{NASTY}", epoch=1, state="failed", reason=f"r{NASTY}", step=f"s{NASTY}", cursor=NASTY,
            failure=NASTY, ended=1,
        )  # fmt: skip
        connection.set(f"harness:progress:{key}", progress.to_json())
        start = {**ENTRY, "epoch": 1, "worker": f"w{NASTY}", "died": None, "durability": NASTY, "job": NASTY}
        end = {"what": "end", "epoch": 1, "done": 3, "outcome": f"o{NASTY}", "reason": f"r{NASTY}"}
        for entry in (start, end):
            connection.xadd(f"harness:history:{key}", {"entry": json.dumps(entry)})
        connection.set(f"harness:pulse:{key}", json.dumps({**HEARTBEAT, "worker": NASTY, "host": NASTY}))
    connection.sadd("rq:workers", f"rq:worker:w{NASTY}")
    for name, value in {
        "state": NASTY,
        "hostname": f"h{NASTY}",
        "current_job": f"j{NASTY}",
        "queues": NASTY,
    }.items():
        connection.hset(f"rq:worker:w{NASTY}", name, value)
    picture = tmp_path / "story.svg"
    results = [
        harness(*command, "--redis", redis_url)
        for command in (
            ["status"], ["status", "--json"], ["monitor", "--once"], ["explain", job_id, "--svg", str(picture)],
            ["explain", job_id, "--json"], ["explain", f"j{NASTY}"], ["explain", f"nothing{NASTY}"],
            ["pause", job_id], ["cancel", job_id], ["resume", job_id], ["interrupt", job_id, "--reason", NASTY],
            ["scale", job_id, "2"], ["recover"], ["status", "--queue", NASTY], ["enqueue", NASTY],
            ["report", f"{NASTY.replace(chr(0), '')}.json"],
        )
    ]  # fmt: skip
    for result in results:
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert_clean(result.output + result.stderr)
    assert_clean(picture.read_text(encoding="utf-8"))
    snapshot = Monitor(Watcher(connection)).refresh()
    assert_clean(summary(snapshot))
    assert "d\N{REPLACEMENT CHARACTER}" in results[0].output


def test_control_characters_reach_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Arguments and tracebacks of log records are clean, of each logger of this package."""
    with caplog.at_level(logging.WARNING, "harness"):
        for name in ("harness", "harness.rq"):
            logger = logging.getLogger(name)
            logger.warning("job %s: %s", f"17\n{NASTY}", ValueError(NASTY))
            logger.warning("job %(id)s", {"id": NASTY})
            try:
                raise ValueError(NASTY)
            except ValueError:
                logger.exception("job %d failed", 17)
    assert caplog.records
    for record in caplog.records:
        told = logging.Formatter().format(record)
        assert_clean(told)
        assert "\n" not in record.getMessage()


def test_the_filter_is_added_once() -> None:
    """Guarding a logger again changes nothing."""
    before = list(logging.getLogger("harness").filters)
    guard("harness")
    assert logging.getLogger("harness").filters == before


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_is_printable_is_clean_and_as_long(text: str) -> None:
    """Each character that steers is replaced by one that does not, so columns and styles keep their places."""
    assert_clean(printable(text))
    assert_clean(printable(text, lines=True))
    assert_clean(escaped(text))
    assert len(printable(text)) == len(text)
    assert printable(text, lines=True).count("\n") == text.count("\n")


def test_report_leaves_out_one_odd_record(tmp_path: Path) -> None:
    """The report names an odd record and leaves it out; a gate that needs it fails with exit code 1."""
    data = sample().to_json()
    records = {
        "environment": data["environment"], "runs": [run(), {**run(), "verdict": NASTY}, 17],
        "explorations": [exploration(), {}],
    }  # fmt: skip
    (tmp_path / "records.json").write_text(json.dumps(records))
    arguments = ["report", str(tmp_path / "records.json"), "--to", str(tmp_path / "out")]
    result = harness(*arguments)
    assert_one_says(result, "left out: runs[1].verdict", "left out: runs[2]", "left out: explorations[1]")
    for path in (tmp_path / "out").iterdir():
        assert_clean(path.read_text(encoding="utf-8"))
    gated = harness(*arguments, "--fail-if", "plain.lost > 1000")
    assert (gated.exit_code, "cannot be judged" in gated.stderr) == (1, True)
    saved = json.loads((tmp_path / "out" / "comparison.json").read_text())
    saved["runs"].append({})
    (tmp_path / "records.json").write_text(json.dumps(saved))
    assert_one_says(harness(*arguments), "left out: runs[1]")


seeds = st.integers(0, 2**64 - 1).map(Random)


@given(seeds)
def test_a_story_of_odd_entries_is_told(random: Random) -> None:
    """Any entries and heartbeat that can be read give a story in text, JSON and SVG."""
    stream = [
        (f"{random.choice([1, 17, 10**13])}-{index}", {"entry": mutated(ENTRY, random)}) for index in range(4)
    ]
    end = {"what": "end", "epoch": 2, "done": 3, "outcome": "failed", "reason": "x"}
    stream.append(("99-0", {"entry": mutated(end, random)}))
    entries = read_history(stream)
    if any(each.what == "start" for each in entries):
        told = story(
            "7", "d", entries, Heartbeat.from_json(mutated(HEARTBEAT, random)), now=random.choice([0.0, 1e9])
        )
        json.dumps(told.to_data(), allow_nan=False)
        assert_clean(story_text.text(told))
        assert_clean(story_picture.svg(told))


@examples(60)
@given(seeds)
def test_a_snapshot_of_odd_records_is_drawn(redis: Redis, random: Random) -> None:
    """Any records that can be read give a screen."""
    redis.flushall()
    redis.sadd("rq:queues", "rq:queue:test")
    redis.rpush("rq:queue:test", "7")
    redis.hset("rq:job:7", "status", random.choice(["queued", "started", "scheduled", "x"]))
    redis.set(
        "harness:progress:7", mutated(json.loads(Progress("7", epoch=1, done=3, total=9).to_json()), random)
    )
    redis.set("harness:pulse:7", mutated(HEARTBEAT, random))
    redis.xadd(
        "harness:history:7", {"entry": mutated(ENTRY, random)}, id=f"{random.choice([1, 10**14 - 1])}-1"
    )
    snapshot = Monitor(Watcher(redis)).refresh()
    json.dumps(snapshot.to_data(), allow_nan=False)
    for line in lines(snapshot, "here"):
        assert_clean(line.plain)
        assert len(line.plain) <= 80
    assert re.match(r"\d\d:\d\d:\d\d ", summary(snapshot))


@examples(30)
@given(seeds)
def test_a_comparison_of_odd_records_is_rendered(tmp_path: Path, random: Random) -> None:
    """Any records that can be read give a report."""
    data = {"environment": sample().to_json()["environment"], "runs": [run(), run(pattern="steps")]}
    path = tmp_path / "records.json"
    path.write_bytes(mutated({**data, "explorations": [exploration()]}, random))
    try:
        made = made_from(path, None, [])
    except HarnessError:
        return
    for text in (report.text(made), report.markdown(made), report.html(made)):
        assert_clean(text)


@pytest.mark.sample(3)
@pytest.mark.parametrize("odd", [0, True, None, "x", 1.5, [0], {}, {"x": 0}, [[]]], ids=repr)
def test_a_part_of_a_file_of_another_type_is_refused_by_name(tmp_path: Path, odd: object) -> None:
    """A file of records, comparison or benchmarks with any part replaced gives a report, or an error that names it."""
    whole = sample().to_json()
    files: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
        ({"environment": whole["environment"], "runs": [run()], "explorations": [exploration()]}, None),
        (whole, None),
        ({"environment": whole["environment"], "runs": [run()]}, benchmarks()),
    ]
    records, measured = tmp_path / "records.json", tmp_path / "benchmarks.json"
    for record, benchmark in files:
        spoilt = record if benchmark is None else benchmark
        for part in [*spoilt]:
            kept, spoilt[part] = spoilt[part], odd
            records.write_text(json.dumps(record))
            measured.write_text(json.dumps(benchmark))
            left_outs: tuple[list[str] | None, ...] = None, []
            for left_out in left_outs:
                try:
                    made = made_from(records, measured if benchmark else None, left_out)
                    shown = report.text(made)
                except UsageError as error:
                    shown = str(error)
                assert_clean(shown)
            spoilt[part] = kept
