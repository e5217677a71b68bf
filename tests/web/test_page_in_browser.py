"""The page in a real browser: figures that move, buttons that act, and what is left when a server goes away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob

from harness.concurrency.kept_items import Quarantined
from harness.lab.servers import redis_server
from harness.progress import Progress
from harness.queues.history import history
from harness.queues.rq import enqueue, request_stop
from harness.stores.rq_meta import FIELD
from tests.browser import Browser
from tests.report.test_report_in_browser import MEASURE
from tests.web.jobs import JOBS
from tests.web.site import Site
from tests.worker_jobs import Numbers, UntilReleased
from tests.workers import Workers, finish_here, release, wait_for

pytestmark = pytest.mark.process

EVENTUALLY = """new Promise(done => {
  const look = () => { const found = (() => (%s))(); if (found) { observer.disconnect(); done(found) } };
  const observer = new MutationObserver(look);
  observer.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
  look();
})"""
HOSTILE = """"><img src=x onerror=hacked()><script>hacked()</script>'{{7*7}}\u202egnp.exe\x1b[31m"""
"""Text that breaks out of HTML, of an attribute, of a template, of the reading direction and of a terminal."""


def eventually(browser: Browser, expression: str) -> Any:
    """Return the value of an expression as soon as the page makes it true."""
    return browser.evaluate(EVENTUALLY % expression)


def row(job_id: str) -> str:
    """Return the expression for the row of a job."""
    return f"document.querySelector('[data-job={json.dumps(job_id)}]')?.closest('li')"


def state_of(job_id: str, *states: str) -> str:
    """Return the expression that is true when the row of a job has one of these states."""
    return f"{json.dumps(states)}.includes({row(job_id)}?.querySelector('.state').textContent)"


def click(browser: Browser, selector: str) -> None:
    """Click with the mouse, where the element is; wait until it is there."""
    eventually(browser, f"document.querySelector({json.dumps(selector)})")
    browser.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
    place = browser.evaluate(
        f"(box => [box.left + box.width / 2, box.top + box.height / 2])(document.querySelector({json.dumps(selector)})"
        ".getBoundingClientRect())"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.call(
            "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
        )  # fmt: skip


def act(browser: Browser, job_id: str, action: str) -> str:
    """Click the button of an action, and return what the page says then."""
    browser.evaluate("document.getElementById('said').replaceChildren()")
    click(browser, f"form[data-act='{job_id}'] button[value='{action}']")
    if action == "cancel":
        click(browser, "#sure-yes")
    return str(eventually(browser, "document.querySelector('#said p')?.textContent"))


@pytest.fixture
def live(broker: Redis) -> Iterator[Site]:
    """Serve the page of the Redis of this process."""
    with Site(broker, jobs=JOBS, where="redis://localhost") as site:
        yield site


def steered(redis: Redis, job_id: str) -> list[str]:
    """Return the actions in the history of a job."""
    return [each.action for each in history(redis, job_id)[0] if each.action]


def test_every_action_by_mouse(
    live: Site, browser: Browser, broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """A job at work is interrupted, paused, resumed, cancelled and requeued; its row shows each end."""
    job = enqueue(jobs_queue, UntilReleased)
    rq_workers.start()
    wait_for(broker, job.id, 1)
    browser.open(live.url, 1280, 900)
    eventually(browser, state_of(job.id, "running"))
    said = act(browser, job.id, "interrupt")
    assert "asked" in said
    eventually(browser, f"{row(job.id)}.textContent.includes('requested on the web page')")
    eventually(browser, state_of(job.id, "running"))
    act(browser, job.id, "pause")
    eventually(browser, state_of(job.id, "paused"))
    act(browser, job.id, "resume")
    eventually(browser, state_of(job.id, "running"))
    act(browser, job.id, "cancel")
    eventually(browser, state_of(job.id, "canceled", "cancelled"))
    act(browser, job.id, "requeue")
    eventually(browser, state_of(job.id, "running"))
    release(broker, job.id)
    eventually(browser, state_of(job.id, "finished"))
    assert steered(broker, job.id) == ["interrupt", "pause", "resume", "cancel", "requeue"]
    assert browser.complaints == []


def test_a_rewind_by_mouse(live: Site, browser: Browser, broker: Redis, jobs_queue: Queue) -> None:
    """The page of a finished job puts it back to the place that is typed, once the user is sure."""
    job = enqueue(jobs_queue, Numbers, 3)
    finish_here(jobs_queue)
    browser.open(live.url + f"job?id={job.id}", 1280, 900)
    browser.evaluate("document.getElementById('place').value = ':0'")
    click(browser, f"form[data-act='{job.id}'] button[value=rewind]")
    click(browser, "#sure-yes")
    assert "rewound to :0" in eventually(browser, "document.querySelector('#said p')?.textContent")
    eventually(browser, "document.querySelector('#log li')?.textContent.includes('rewind by local: :0')")
    finish_here(jobs_queue)
    eventually(browser, "document.querySelector('.job-head .state').textContent === 'finished'")
    assert steered(broker, job.id) == ["rewind"]


def test_a_cancel_can_be_taken_back(live: Site, browser: Browser, broker: Redis, jobs_queue: Queue) -> None:
    """The page asks before it cancels, and Escape or the other button leaves the job as it is."""
    job = enqueue(jobs_queue, Numbers, 3)
    browser.open(live.url, 1280, 900)
    click(browser, f"form[data-act='{job.id}'] button[value=cancel]")
    eventually(browser, "document.querySelector('#sure').open")
    click(browser, "#sure button[value=no]")
    eventually(browser, "!document.querySelector('#sure').open")
    assert steered(broker, job.id) == []


def test_an_action_that_is_refused_says_why(
    live: Site, browser: Browser, broker: Redis, jobs_queue: Queue
) -> None:
    """The reason is shown, and stands in the history."""
    job = enqueue(jobs_queue, Numbers, 3)
    browser.open(live.url, 1280, 900)
    eventually(browser, state_of(job.id, "queued"))
    # In one go: a change from the server would put the button right again.
    button = f"{row(job.id).replace('?', '')}.querySelector('button')"
    browser.evaluate(f"(button => {{ button.value = 'requeue'; button.click() }})({button})")
    assert "is not over: queued" in eventually(browser, "document.querySelector('#said .bad')?.textContent")
    assert "refused: " in str(history(broker, job.id)[0][1].reason)


def test_the_figures_move_by_themselves(
    live: Site, browser: Browser, broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """A bar grows, and so does the number of items, without a reload, on the list and on the page of the job."""
    job = enqueue(jobs_queue, UntilReleased, 100_000)
    rq_workers.start()
    done = "Number(document.querySelector('svg.bar')?.getAttribute('aria-valuetext').replace(/,| of.*/g, ''))"
    for path in ("", f"job?id={job.id}"):
        browser.open(live.url + path, 1280, 900)
        browser.evaluate("window.kept = true")
        first = eventually(browser, done)
        assert eventually(browser, f"(now => now > {first} && now)({done})") > first
        assert browser.evaluate("window.kept")
    eventually(browser, "document.querySelectorAll('.lanes li').length === 1")
    request_stop(broker, job.id)
    eventually(browser, "document.querySelectorAll('.lanes li').length === 2")
    release(broker, job.id)
    eventually(browser, "document.querySelector('.job-head .state').textContent === 'finished'")
    assert browser.complaints == []


def test_two_viewers_see_the_same(live: Site, browser: Browser, broker: Redis, jobs_queue: Queue) -> None:
    """What one does is shown to the other."""
    job = enqueue(jobs_queue, Numbers, 3)
    browser.open(live.url, 1280, 900)
    eventually(browser, state_of(job.id, "queued"))
    first = browser._session
    with browser.page():
        browser.open(live.url, 360, 900)
        act(browser, job.id, "pause")
        finish_here(jobs_queue)
        eventually(browser, state_of(job.id, "paused"))
    browser._session = first
    eventually(browser, state_of(job.id, "paused"))
    assert live.app.state.feed.viewers <= 2


def test_the_page_outlives_a_restart_of_its_server(
    live: Site, browser: Browser, broker: Redis, jobs_queue: Queue
) -> None:
    """It says that nobody answers, is live again with the new server, and its buttons work without a reload."""
    job = enqueue(jobs_queue, Numbers, 3)
    browser.open(live.url, 1280, 900)
    browser.evaluate("window.kept = true")
    eventually(browser, "document.querySelector('.live.on')")
    live.stop()
    eventually(browser, "document.querySelector('.live.off')")
    assert "the result of the action is unknown" in act(browser, job.id, "pause")
    live.start()
    eventually(browser, "document.querySelector('.live.on')")
    assert "will pause" in act(browser, job.id, "pause")
    assert browser.evaluate("window.kept")
    assert steered(broker, job.id) == ["pause"]


def test_the_page_outlives_a_lost_redis(browser: Browser) -> None:
    """It keeps the figures, says from when they are, refuses actions in words, and goes on when Redis is back."""
    with redis_server(appendonly=True) as server, Redis.from_url(server.url) as connection:
        job = enqueue(Queue("test", connection=connection, serializer="json"), Numbers, 3)
        with Site(connection) as site:
            browser.open(site.url, 1280, 900)
            eventually(browser, state_of(job.id, "queued"))
            server.stop()
            alarm = eventually(browser, "document.querySelector('.alarm[role=alert]')?.textContent")
            assert "Redis does not answer" in alarm
            assert "The figures are those of" in alarm
            assert "no answer from Redis" in act(browser, job.id, "pause")
            assert browser.evaluate(state_of(job.id, "queued"))
            server.start()
            eventually(browser, "!document.querySelector('.alarm[role=alert]')")
            assert "will pause" in act(browser, job.id, "pause")


def test_a_job_is_enqueued_from_the_form(live: Site, browser: Browser, jobs_queue: Queue) -> None:
    """A wrong value is explained at its field, and right ones make a job."""
    browser.open(live.url + "enqueue", 800, 900)
    fill = "(name, text) => document.querySelector(`[name='${name}']`).value = text"
    browser.evaluate(f"({fill})('arg-number', ''); ({fill})('queue', 'test')")
    click(browser, "button[value=enqueue]")
    assert "whole number" in eventually(browser, "document.getElementById('arg-number-error').textContent")
    assert browser.evaluate("document.getElementById('arg-number').getAttribute('aria-invalid')") == "true"
    browser.evaluate(
        f"({fill})('arg-number', '17'); ({fill})('arg-name', 'x'); ({fill})('arg-day', '2031-05-01')"
    )
    click(browser, "button[value=enqueue]")
    assert "is in queue test" in eventually(browser, "document.querySelector('#said .good')?.textContent")
    (job,) = jobs_queue.get_jobs()
    assert job.args[1:3] == [[17, "x"], {"day": {"$date": "2031-05-01"}}]


def hostile(redis: Redis, queue: Queue) -> str:
    """Put a job into a queue whose every text is hostile, and return its id."""
    job = enqueue(queue, Numbers, 3)
    redis.hset(job.key, "description", HOSTILE)
    progress = Progress(
        job.id, job="x:Y", epoch=3, state="failed", reason=HOSTILE, step=HOSTILE, cursor=HOSTILE
    )
    progress.attributes, progress.quarantined = {HOSTILE: HOSTILE}, [Quarantined(HOSTILE, 3, HOSTILE)]
    redis.hset(job.key, FIELD, progress.to_json())
    for entry in (
        {"what": "start", "epoch": 1, "done": 0, "worker": HOSTILE, "durability": HOSTILE},
        {"what": "end", "epoch": 1, "done": 1, "outcome": HOSTILE, "reason": HOSTILE},
        {"what": "asked", "epoch": 0, "done": 0, "action": HOSTILE, "by": HOSTILE, "reason": HOSTILE},
    ):
        redis.xadd(f"harness:history:{job.id}", {"entry": json.dumps(entry)})
    return job.id


def test_hostile_texts_are_shown_and_do_nothing(live: Site, browser: Browser, broker: Redis) -> None:
    """Names, cursors, errors, users and ids with HTML, script and control characters are text and nothing else."""
    queue = Queue(HOSTILE, connection=broker, serializer="json")
    job_id = hostile(broker, queue)
    RQJob.create(len, args=([],), id="odd", connection=broker).save()
    for path in ("", f"job?id={job_id}", "job?id=%22%3E%3Cscript%3Ehacked()%3C/script%3E"):
        browser.open(live.url + path, 1280, 900)
        eventually(browser, "document.querySelector('.live.on')")
        assert browser.evaluate("document.querySelectorAll('main img, main script, [onerror]').length") == 0
        text = browser.evaluate("document.body.innerText")
        assert "<script>hacked()</script>" in text
        assert "{{7*7}}" in text or "id=" in path
        assert "\u202e" not in text
        assert browser.complaints == []


@pytest.fixture
def crowd(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> tuple[str, str]:
    """Return a job at work, and one whose texts are all hostile."""
    running = enqueue(jobs_queue, UntilReleased, 50_000)
    rq_workers.start()
    wait_for(broker, running.id, 1)
    return running.id, hostile(broker, Queue("low", connection=broker, serializer="json"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1600])
def test_is_whole_and_legible_in_every_window(
    live: Site, browser: Browser, crowd: tuple[str, str], width: int, scheme: str
) -> None:
    """At 360, 800 and 1600 pixels, light and dark, nothing is cut off or too faint, and no page scrolls sideways."""
    running, other = crowd
    for path in ("", f"job?id={running}", f"job?id={other}", "enqueue"):
        browser.open(live.url + path, width, 900, scheme)
        eventually(browser, "document.querySelector('.live.on')")
        measured = browser.evaluate(MEASURE)
        assert measured["faint"] == [], f"{path}: less than 4.5 to 1 (WCAG AA)"
        assert measured["page"] <= measured["width"] == width, f"{path}: the page scrolls sideways"
        assert measured["beyond"] == [], f"{path}: text is cut off"


def test_the_keyboard_reaches_everything(live: Site, browser: Browser, jobs_queue: Queue) -> None:
    """Tab visits each link, field and button, the focus is visible, and Enter acts; the focus stays in the row."""
    job = enqueue(jobs_queue, Numbers, 3)
    browser.open(live.url, 1280, 900)
    eventually(browser, state_of(job.id, "queued"))
    wanted = browser.evaluate(
        "[...document.querySelectorAll('a, button, input, .scroll')].filter(each => each.checkVisibility()).length"
    )
    seen = set()
    for _ in range(wanted + 3):
        browser.press("Tab")
        seen.add(browser.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
        outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid" or browser.evaluate("document.activeElement === document.body")
    assert len(seen - {0}) >= wanted
    browser.evaluate(f"{row(job.id)}.querySelector('[value=pause]').focus()")
    browser.press("Enter")
    assert "will pause" in eventually(browser, "document.querySelector('#said p')?.textContent")
    finish_here(jobs_queue)
    eventually(browser, state_of(job.id, "paused"))
    assert browser.evaluate(f"{row(job.id)}.contains(document.activeElement)")


def test_a_screen_reader_hears_what_is_seen(
    live: Site, browser: Browser, broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """Each control has a name, bars have a value in words, and there is one main heading, banner and main part."""
    job = enqueue(jobs_queue, UntilReleased, 50_000)
    rq_workers.start()
    wait_for(broker, job.id, 1)
    for path in ("", f"job?id={job.id}", "enqueue"):
        browser.open(live.url + path, 1280, 900)
        eventually(browser, "document.querySelector('.live.on')")
        if path != "enqueue":
            eventually(browser, "document.querySelector('svg.bar')")
        nodes = [
            each for each in browser.call("Accessibility.getFullAXTree")["nodes"] if not each["ignored"]
        ]  # fmt: skip
        by_role: dict[str, list[str]] = {}
        for each in nodes:
            by_role.setdefault(each["role"]["value"], []).append(each.get("name", {}).get("value", ""))
        assert len(by_role["main"]) == len(by_role["banner"]) == 1
        assert browser.evaluate("document.querySelectorAll('h1').length") == 1
        for role in ("button", "link", "textbox", "searchbox", "combobox", "spinbutton", "progressbar"):
            assert all(by_role.get(role, [])), f"{path}: a {role} has no name"
    release(broker, job.id)


def test_the_filter_shows_what_contains_its_words(live: Site, browser: Browser, jobs_queue: Queue) -> None:
    """Typing into the filter hides the other rows, and they stay hidden when figures change."""
    kept, other = enqueue(jobs_queue, Numbers, 3), enqueue(jobs_queue, Numbers, 4)
    browser.open(live.url, 1280, 900)
    eventually(browser, state_of(other.id, "queued"))
    browser.evaluate("document.getElementById('filter').focus()")
    browser.call("Input.insertText", text=f"numbers {kept.id[:13]}")
    eventually(browser, f"{row(other.id)}.hidden && !{row(kept.id)}.hidden")
    finish_here(jobs_queue)
    eventually(browser, state_of(other.id, "finished"))
    assert browser.evaluate(f"{row(other.id)}.hidden && !{row(kept.id)}.hidden")


def test_a_filter_that_fits_no_job_says_so(live: Site, browser: Browser, jobs_queue: Queue) -> None:
    """The page says that no listed job fits, also when figures change, until a job does or the filter is empty."""
    job = enqueue(jobs_queue, Numbers, 3)
    browser.open(live.url, 1280, 900)
    eventually(browser, state_of(job.id, "queued"))
    message = "document.getElementById('unmatched')"
    assert browser.evaluate(f"{message}.hidden")
    browser.evaluate("document.getElementById('filter').focus()")
    browser.call("Input.insertText", text="nothing like it")
    eventually(browser, f"{row(job.id)}.hidden && !{message}.hidden")
    assert browser.evaluate(f"{message}.checkVisibility() && {message}.textContent").startswith(
        "No listed job"
    )
    finish_here(jobs_queue)
    eventually(browser, state_of(job.id, "finished"))
    assert not browser.evaluate(f"{message}.hidden")
    browser.evaluate("document.getElementById('filter').select()")
    browser.call("Input.insertText", text="numbers")
    eventually(browser, f"!{row(job.id)}.hidden && {message}.hidden")
    browser.call("Input.insertText", text=" nothing")
    eventually(browser, f"!{message}.hidden")
    browser.evaluate("document.getElementById('filter').select()")
    browser.press("Backspace")
    eventually(browser, f"!{row(job.id)}.hidden && {message}.hidden")
