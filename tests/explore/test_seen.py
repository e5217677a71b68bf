"""A verdict says which effects of a job no probe watches, and nothing of what only looks like one."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import sqlite3
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from harness.errors import UsageError
from harness.explore import Verdict, explore, probes, seen
from harness.explore.probes import audit, clients, drivers, postgres_server, redis_server
from tests import documents, seen_jobs, unseen_jobs
from tests.commands import harness
from tests.explore.receiver import receiving
from tests.planted import effects, shop
from tests.unseen_jobs import NOT_SEEN, also

QUICK: dict[str, Any] = {"actions": ["crash"], "pairs": False, "sample": 2}
DOCUMENTED = Path(__file__).with_name("audit_events.txt")
"""The events in the table of Python's documentation, of versions 3.11 to 3.14, one a line."""

RECEIVED: list[str] = []


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    RECEIVED.clear()
    yield
    shop.close_shop()


def names(verdict: Verdict) -> set[str]:
    """Return the names of what was not seen."""
    return {each.name for each in verdict.not_seen}


@pytest.mark.sample(4)
@pytest.mark.parametrize("job", NOT_SEEN, ids=lambda job: job.__name__)
def test_an_effect_that_no_probe_watches_is_reported_at_its_line(job: Any) -> None:
    """Each way out of the process has a name in the verdict, and the line of the job."""
    verdict = explore(also, job.__name__, **QUICK)
    assert verdict.verdict == "exactly once, of what was seen", verdict.text()
    assert not verdict.good
    assert names(verdict) == {NOT_SEEN[job]}, verdict.text()
    assert f"not seen: {NOT_SEEN[job]}: " in verdict.text()
    if job is not unseen_jobs.leaves_a_thread_behind:  # which is seen only when its job is done
        assert all(lines(each.line) for each in verdict.not_seen), verdict.text()


def lines(line: str) -> bool:
    """Return whether a line is one of the job's."""
    return line.startswith("tests/unseen_jobs.py:")


@pytest.mark.sample(3)
@pytest.mark.parametrize("job", seen_jobs.SEEN, ids=lambda job: job.__name__)
def test_a_job_that_only_reads_computes_or_is_watched_is_not_accused(job: Any) -> None:
    """Reading, imports, temporary files, threads that end and asyncio's own sockets are not reported."""
    verdict = explore(seen_jobs.also, job.__name__, **QUICK)
    assert verdict.verdict == "exactly once", verdict.text()
    assert verdict.good
    assert "not seen" not in verdict.text()


def test_every_documented_audit_event_has_its_place() -> None:
    """An event is handled, seen by way of another, or harmless for a reason; never two of these."""
    documented = set(DOCUMENTED.read_text(encoding="utf-8").split())
    harmless = {event for events in audit.HARMLESS.values() for event in events}
    places = [set(audit.HANDLERS), set(audit.TOLD_BY_OTHERS), harmless]
    assert documented <= set().union(*places)
    assert sum(map(len, places)) == len(set().union(*places))


def test_what_is_accepted_does_not_count() -> None:
    """Accepted by its name, it is listed as that, and the verdict is whole."""
    verdict = explore(also, "runs_a_shell", accept=["process"], **QUICK)
    assert verdict.verdict == "exactly once"
    assert verdict.good
    assert "not seen, accepted: process: " in verdict.text()
    assert [each.name for each in verdict.accepted] == ["process"]
    assert json.loads(json.dumps(verdict.record))["accepted"][0]["name"] == "process"


def test_a_finding_stands_next_to_what_was_not_seen() -> None:
    """A job that is wrong is called that, and what was not seen is listed all the same."""
    verdict = explore(wrong_and_unseen, **QUICK)
    assert verdict.verdict == "duplicated"
    assert names(verdict) == {"process"}


def wrong_and_unseen() -> None:
    """Pay twice, and run a shell."""
    unseen_jobs.runs_a_shell()
    effects.effect_before_commit()


def only_unseen() -> None:
    """Run a shell, and nothing else."""
    unseen_jobs.runs_a_shell()


def test_a_job_whose_effects_are_all_unseen_is_refused_with_them() -> None:
    """Nothing can be compared, and the error names what was not seen."""
    with pytest.raises(UsageError, match=r"not seen: process: os\.system runs a shell, at tests/unseen_jobs"):
        explore(only_unseen)


@pytest.fixture(params=[False, True], ids=["", "frozen"])
def kept(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Yield what the application has open, also if it has called ``gc.freeze()``: a connection and a descriptor."""
    connection = sqlite3.connect(str(shop.report().with_name("other.db")))
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    number = os.open(shop.report().with_name("notes.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    unseen_jobs.KEPT.update(connection=connection, descriptor=number)
    if request.param:
        gc.freeze()
    yield unseen_jobs.KEPT
    gc.unfreeze()
    unseen_jobs.KEPT.clear()
    connection.close()
    os.close(number)


@pytest.mark.usefixtures("kept")
@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("writes_through_an_older_connection", {"sqlite3"}),
        ("reads_through_an_older_connection", set()),
        ("writes_through_an_older_descriptor", {"open-file"}),
        ("text_file", set()),
    ],
)
def test_what_was_open_before_is_reported_if_the_job_writes_through_it(job: str, name: set[str]) -> None:
    """A connection or a descriptor that is older than the exploration is reported when it is written to, not before."""
    verdict = explore(also, job, **QUICK)
    assert names(verdict) == name, verdict.text()


@pytest.mark.parametrize(
    ("options", "code"),
    [([], 3), (["--strict"], 1), (["--accept", "process"], 0), (["--accept", "socket"], 3)],
)
def test_the_command_exits_with_its_own_code(options: list[str], code: int) -> None:
    """3 for what was not seen, 1 if that is an error, 0 if it is accepted."""
    found = harness("explore", "tests.unseen_jobs:also", '"runs_a_shell"', "--sample", "2", *options)
    assert found.exit_code == code, found.output


def test_a_limit_that_is_too_short_is_named() -> None:
    """A slow job does not pass for an endless one: the verdict names the limit and the option."""
    verdict = explore(slow, limit=0.2)
    assert verdict.verdict == "not done in time"
    assert "not done within the limit of 0.2 s; raise it by --limit" in verdict.text()


def slow() -> None:
    """Take more than a moment."""
    unseen_jobs.pay()
    threading.Event().wait(1)


def test_an_exploration_ends_when_its_time_is_over() -> None:
    """After the time no more trials begin, and the verdict says so."""
    verdict = explore(effects.effect_with_commit, time=1e-6)
    assert sum(verdict.trials.values()) == 1
    assert "no trial started after 1e-06 s; allow more with --time or time=" in verdict.text()


def test_the_number_of_trials_and_the_seconds_are_announced() -> None:
    """Before the first trial, its caller hears how many there are, and about how long they take."""
    heard: list[tuple[int, float]] = []
    verdict = explore(
        effects.effect_with_commit, sample=3, pairs=False, announce=lambda *both: heard.append(both)
    )
    assert heard[0][0] == sum(verdict.trials.values())
    assert heard[0][1] > 0


_executions = iter(range(1_000_000))  # an iterator's place is nothing that an explorer restores


def fewer_commits_later() -> None:
    """Come to the same end with three commits at first, and later with one."""
    first = next(_executions) < 2
    with shop.session() as session:
        for total in (3, 2, 1) if first else (1,):
            shop.set_total(session, "done", total)
            session.commit()


def test_a_point_that_is_not_reached_again_is_reported_and_the_rest_goes_on() -> None:
    """A job that does not pass the same points each time gets a verdict, which names a trial that was left out."""
    verdict = explore(fewer_commits_later, pairs=False)
    assert re.search(r"trials? did not reach the crash point again, such as \S+#[23]", verdict.text())
    assert verdict.verdict == "exactly once, of what was seen"
    assert sum(verdict.trials.values()) > 0


@pytest.fixture
def address() -> Iterator[str]:
    """Yield the address of a server."""
    with receiving(RECEIVED) as found:
        yield f"http://{found}"


def by_urllib(url: str) -> None:
    """Post."""
    urllib.request.urlopen(urllib.request.Request(url, data=b"1", method="POST")).close()  # noqa: S310


def by_requests(url: str) -> None:
    """Post."""
    with requests.Session() as session:
        session.post(url, data=b"1", timeout=60)


def by_httpx(url: str) -> None:
    """Post."""
    with httpx.Client(trust_env=False) as client:
        client.post(url, content=b"1")


def by_httpx_async(url: str) -> None:
    """Post."""

    async def post() -> None:
        """Post with httpx."""
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(url, content=b"1")

    asyncio.run(post())


def by_aiohttp(url: str) -> None:
    """Post."""

    async def post() -> None:
        """Post with aiohttp."""
        async with aiohttp.ClientSession() as client, client.post(url, data=b"1") as answer:
            await answer.read()

    asyncio.run(post())


CLIENTS = {each.__name__: each for each in (by_urllib, by_requests, by_httpx, by_httpx_async, by_aiohttp)}


def posts(client: str, address: str) -> None:
    """Post, and mark a moment later."""
    with shop.session() as session:
        for invoice in [each for each in shop.pending(session) if each.id <= 2]:
            CLIENTS[client](f"{address}/invoices/{invoice.id}")
            shop.pay_once(session, invoice.id)


@pytest.mark.sample(3)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_request_by_any_client_is_seen(client: str, address: str) -> None:
    """A request that is sent twice is found, whatever client sends it, and none is reported as not seen."""
    verdict = explore(posts, client, address, actions=["crash", "lost-reply"], pairs=False)
    assert verdict.verdict == "duplicated", verdict.text()
    assert "/invoices/1, 2 times" in verdict.text()
    assert not verdict.not_seen, verdict.text()
    assert any(finding.trial.startswith("lost-reply:request") for finding in verdict.findings)


def test_the_guide_names_everything_that_is_reported() -> None:
    """The table of the guide lists every kind of crash point, every name of what is reported, and every client in C."""
    guide = (documents.ROOT / "docs" / "explorer.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1] for row in guide.splitlines() if row.startswith("| `")]
    named = {word.strip("` ") for row in rows for word in row.split(",")}
    kinds = {
        word.strip("`")
        for row in re.findall(r"^(``.*?)  ", probes.__doc__ or "", re.MULTILINE)
        for word in row.split(", ")
    }
    assert len(kinds) > 10
    assert kinds <= named
    sources = (documents.ROOT / "harness" / "explore").rglob("*.py")
    code = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    reached = set(re.findall(r'\breach\(\s*"([a-z-]+)"', code))
    assert len(reached) > 10
    assert reached <= named
    reported = set(re.findall(r'\b(?:unseen|not_seen\.add)\(\s*"([\w-]+)"', code))
    assert len(reported) > 10
    constants = {seen.UNREACHED, postgres_server.NAME, redis_server.NAME}
    assert reported | constants | set(NOT_SEEN.values()) | set(drivers.IN_C) <= named
    assert named & set(clients.CLIENTS) == set(clients.CLIENTS)
