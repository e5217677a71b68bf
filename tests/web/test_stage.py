"""The demo on the page: real workers, killed by mouse, and what the three forms make of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from harness.cli.app import EXTRAS
from harness.lab.servers import redis_server
from harness.queues.history import history
from harness.web.orders import scenario
from harness.web.stage import LaneView, Stage
from tests.browser import Browser
from tests.web.site import Client, Site, until
from tests.web.test_page_in_browser import click, eventually
from tests.workers import PATIENCE, processes_of_session

pytestmark = pytest.mark.process

ITEMS, PACE = 40, 0.15


@pytest.fixture
def stage_site(tmp_path: Path) -> Iterator[Site]:
    """Serve the demo."""
    with (
        redis_server() as server,
        Redis.from_url(server.url) as connection,
        Stage(scenario, server.url, tmp_path, items=ITEMS, pace=PACE) as stage,
        Site(connection, stage=stage) as site,
    ):
        yield site


def act(client: Client, lane: str, action: str) -> str:
    """Press a button, and return what the page says; fail if it is refused."""
    answer = client.post("/stage", action=action, lane=lane)
    assert answer.data["ok"], answer.text
    return str(answer.data["text"])


def lane_of(parts: dict[str, str], lane: str) -> str:
    """Return the HTML of a lane; empty if the parts do not have it, because it has not changed."""
    found = (each for each in parts.get("stage", "").split("<article") if f'data-stage="{lane}"' in each)
    return next(found, "")


def at_work(lane: str, paid: int = 5, below: int = ITEMS) -> Callable[[dict[str, str]], bool]:
    """Return whether so many orders are paid and a process is there to be killed."""

    def seen(parts: dict[str, str]) -> bool:
        html = lane_of(parts, lane)
        done = int(html.partition(' aria-valuenow="')[2].partition('"')[0] or 0)
        return paid <= done < below and 'value="horse"' in html

    return seen


def back(lane: str, after: str) -> Callable[[dict[str, str]], bool]:
    """Return whether a card says that its job is back at work."""
    said = f"Back at work after {after}. No order was paid twice."
    return lambda parts: said in lane_of(parts, lane)


def finished(lane: str) -> Callable[[dict[str, str]], bool]:
    """Return whether the job of a lane is finished."""
    return lambda parts: "state finished" in lane_of(parts, lane)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("lane", "victim"),
    [
        ("iteration", "worker"),
        ("steps", "term"),
        *(
            pytest.param(*each, marks=pytest.mark.full)
            for each in (
                ("iteration", "both"),
                ("iteration", "horse"),
                ("iteration", "term"),
                ("steps", "both"),
                ("steps", "horse"),
                ("steps", "worker"),
            )
        ),
    ],
)
def test_a_resumable_job_comes_back_and_pays_each_order_once(
    stage_site: Site, lane: str, victim: str
) -> None:
    """Whatever is killed, the job continues and all orders are paid exactly once; the history names who did it."""
    client = stage_site.client()
    act(client, lane, "start")
    with client.events() as events:
        until(events, at_work(lane))
        act(client, lane, victim)
        until(events, back(lane, "1 deploy" if victim == "term" else "1 kill"))
        html = lane_of(until(events, finished(lane)), lane)
    assert f"All {ITEMS} orders were paid exactly once." in html


@pytest.mark.full  # as by mouse, below
def test_the_plain_loop_begins_again_and_charges_twice(stage_site: Site) -> None:
    """Its horse is killed, RQ starts it at order 1, and the page shows how many customers were charged twice."""
    client = stage_site.client()
    act(client, "plain", "start")
    with client.events() as events:
        until(events, at_work("plain"))
        act(client, "plain", "horse")
        html = lane_of(until(events, finished("plain")), "plain")
    assert "charged twice. The job counts as successful" in html
    assert int(html.partition(" orders paid, ")[2].partition(" twice")[0]) >= 5


def test_start_again_begins_with_fresh_data(stage_site: Site) -> None:
    """A second start ends what is left of the first run, and its figures begin at 0."""
    client = stage_site.client()
    act(client, "iteration", "start")
    with client.events() as events:
        until(events, at_work("iteration", 12))
        act(client, "iteration", "start")
        html = lane_of(until(events, at_work("iteration", 1, 12)), "iteration")
    assert f" of {ITEMS} orders paid</b>" in html, "and none twice"
    assert client.get("/job?id=iteration-1").text.count("There is no such job") == 1


def test_what_cannot_be_killed_is_refused(stage_site: Site) -> None:
    """Before a start there is nothing to kill, and unknown buttons and lanes do nothing."""
    client = stage_site.client()
    for lane, action in (("plain", "horse"), ("plain", "explode"), ("other", "start")):
        assert client.post("/stage", action=action, lane=lane).status == 409


def test_a_page_without_a_demo_kills_nothing(client: Client) -> None:
    """Outside the demo the address is refused, and no button is shown."""
    assert client.post("/stage", action="horse", lane="plain").status == 404
    assert "data-stage" not in client.get("/").text


def test_by_mouse_alone(stage_site: Site, browser: Browser) -> None:
    """A user starts a form, watches its bar, kills it, sees it come back, and reads what happened."""
    browser.open(stage_site.url, 1280, 900)
    bar = "Number(document.querySelector('.lane-card.iteration .bar').getAttribute('aria-valuenow'))"
    click(browser, "[data-stage=iteration] [value=start]")
    click(browser, "[data-stage=plain] [value=start]")
    eventually(browser, f"{bar} > 4")
    click(browser, "[data-stage=iteration] [value=both]")
    click(browser, "[data-stage=plain] [value=horse]")
    eventually(
        browser,
        "document.querySelector('.lane-card.iteration .verdict').textContent.includes('exactly once')",
    )
    eventually(
        browser,
        "document.querySelector('.lane-card.plain .verdict').textContent.includes('The job counts as successful')",
    )
    assert browser.complaints == []


def test_the_actions_of_the_demo_are_in_the_history(tmp_path: Path) -> None:
    """A start and a kill stand in the history of the job, with the user."""
    with (
        redis_server() as server,
        Redis.from_url(server.url) as connection,
        Stage(scenario, server.url, tmp_path, items=ITEMS, pace=PACE) as stage,
    ):
        stage.act("start", "steps", "ann")

        def lane() -> LaneView:
            return next(each for each in stage.view({}) if each.form == "steps")

        while stage._horse(stage._lanes["steps"]) is None:
            lane()
        stage.act("horse", "steps", "ann")
        found = [(each.action, each.by) for each in history(connection, "steps-1")[0] if each.action]
    assert found == [("started", "ann"), ("killed the work horse", "ann")]


def test_the_demo_needs_nothing_of_the_lab() -> None:
    """The extra ``web`` is enough for the demo on the page: it loads no package that only ``test`` installs."""
    code = (
        "import sys; sys.modules |= dict.fromkeys(['aiosmtpd', 'fakeredis', 'pytest'])\n"  # these cannot be imported
        "import harness.web.stage, harness.web.performer, harness.web.orders\n"
        "from harness.cli.web import show_demo"
    )
    assert {EXTRAS[name] for name in ("aiosmtpd", "fakeredis", "pytest")} == {"test"}
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_second_start_forgets_the_workers_of_the_first(stage_site: Site) -> None:
    """The list of workers has those of the latest run of a form, not those that its start has ended."""
    client = stage_site.client()
    act(client, "steps", "start")
    with client.events() as events:
        until(events, at_work("steps", 1))
        act(client, "steps", "start")
        workers = until(events, lambda parts: "steps-worker-2" in parts.get("workers", ""))["workers"]
    assert "steps-worker-1" not in workers


def test_a_killed_worker_leaves_the_list(stage_site: Site) -> None:
    """The list of workers has the one that took the job of a killed worker, and not the killed one."""
    client = stage_site.client()
    act(client, "iteration", "start")
    with client.events() as events:
        until(events, at_work("iteration"))
        act(client, "iteration", "both")
        workers = until(events, lambda parts: "iteration-worker-2" in parts.get("workers", ""))["workers"]
    assert "iteration-worker-1" not in workers


def test_the_command_serves_the_demo_and_leaves_nothing(tmp_path: Path) -> None:
    """``harness web --demo`` prints its address, ends at Ctrl-C with one line, and its servers and workers end too."""
    command = [sys.executable, "-m", "harness", "web", "--demo", "--port", "0"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd="/",
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = process.stderr.readline()
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        client = Client(port)
        act(client, "iteration", "start")
        with client.events() as events:
            until(events, at_work("iteration", 1))
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 130
    assert said == "harness: stopped; nothing was kept: the demo used private services\n"
    assert list(tmp_path.iterdir()) == []
    assert processes_of_session(process.pid) == []


@pytest.mark.sample(1)
@pytest.mark.parametrize("width", [768, 1440])
def test_the_bars_of_the_cards_are_aligned(stage_site: Site, browser: Browser, width: int) -> None:
    """The three bars are at one height, so that they can be compared."""
    browser.open(stage_site.url, width, 900)
    eventually(browser, "document.querySelectorAll('.lane-card').length === 3")
    tops = browser.evaluate(
        "[...document.querySelectorAll('.lane-card .bar.tall')].map(each => each.getBoundingClientRect().top)"
    )
    assert len(tops) == 3
    assert max(tops) - min(tops) < 1
