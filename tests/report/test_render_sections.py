"""Sections of the report after the verdicts: damage, latencies, durability, coverage, advice, changes, pictures."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from harness import report
from harness.report import Change, advice, comparison
from harness.report.commands import command
from harness.report.overview import chosen, overview
from tests.comparisons import (
    ENVIRONMENT,
    benchmark,
    benchmarks,
    exploration,
    killed,
    run,
    runs,
    sample,
    showpiece,
    varying,
)
from tests.documents import ROOT
from tests.report.test_render import Page, hostile

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def page() -> Page:
    """Read the page of the showpiece."""
    return Page(report.html(showpiece()))


@pytest.mark.parametrize(
    "words",
    [
        "duplicated 3 of 500, 0 by key every(items=5) ✓ exactly once with_transaction()",
        "real workers: redis, postgresql",
        "every(items=5) steps 2 3 3 0 5 1.10",
        "at least once, repeated ≤ 5 210 48 of 64 8 of 9 120 5 2.50 s",
        "25 of 25 interrupted runs lost or repeated work",
        "the broker is a Redis server",
        "One wrong run proves that the job can fail",
    ],
)
def test_says_plainly(page: Page, words: str) -> None:
    """Every section has its figures in words."""
    assert words in page.seen


def test_advice_is_on_the_page_and_in_markdown(page: Page) -> None:
    """The page has the advice with its rule, and both outputs have its figures."""
    for each in advice(showpiece()):
        assert each.rule in page.seen
        assert each.figures in page.seen
        assert each.answer in page.seen
        assert each.answer.replace("_", "&#95;") in report.markdown(showpiece())


def test_durabilities_that_ended_alike_are_told_together() -> None:
    """A cell of the matrix repeats no verdict."""
    records = [
        each | {"durability": name} for each in killed()[1:2] for name in ("on_stop()", "with_transaction()")
    ]
    seen = Page(report.html(comparison(ENVIRONMENT, records))).seen
    assert "exactly once on_stop(), with_transaction()" in seen


def test_who_is_killed_has_no_time_to_stop() -> None:
    """Only runs that were asked to stop have a latency in the drawing."""
    record = killed()[2] | {"stop_latency_s": 0.5}
    assert "To stop" not in Page(report.html(comparison(ENVIRONMENT, [record]))).seen
    assert "To stop" in Page(report.html(comparison(ENVIRONMENT, [run(pattern="steps")]))).seen


def test_nothing_is_told_that_was_not_done() -> None:
    """Sections without figures say so in a sentence."""
    seen = Page(report.html(comparison(ENVIRONMENT, [run(interruption="none")]))).seen
    for words in ("Not measured.", "Nothing was killed", "Not explored.", "Nothing was interrupted."):
        assert words in seen


def test_costs_that_are_too_noisy_are_called_so() -> None:
    """Every form of the report says so, with plain's range, and only if the costs are too noisy."""
    words = "Too noisy to compare: orders, whose plain form ranges from 0.54 to 1.86 times itself."
    for form in (lambda made: Page(report.html(made)).seen, report.markdown, report.text):
        assert words in " ".join(form(varying()).split())
        assert "Too noisy to compare:" not in form(showpiece())


def test_names_and_signs_are_explained_where_they_first_occur(page: Page) -> None:
    """Interruptions by a link, the dash and what is counted by key in the legend of the verdicts."""
    assert ("a", {"href": "#interruptions"}) in page.elements
    assert ("h3", {"id": "interruptions"}) in page.elements
    first = page.seen.index("3 of 500, 0 by key")
    for words in (
        "\N{EN DASH} not tried",
        "by key duplicated items that remain when copies with the same idempotency key",
    ):
        assert page.seen.index(words) < first
    assert "*\N{EN DASH}*: not tried" in report.markdown(showpiece())


def test_a_name_is_not_broken_before_its_number() -> None:
    """A name may be broken anywhere but before its number."""
    told = report.html(comparison(ENVIRONMENT, [run(interruption="kill:both@count:33")]))
    assert "kill:both@<wbr>count:33" in told


def test_changes_are_told_only_against_another() -> None:
    """Only with another comparison does the page have this section and a link to it, even if nothing changed."""
    assert "Changes" not in report.html(sample()) + report.markdown(sample())
    assert "Nothing changed beyond noise." in Page(report.html(sample(), [])).seen
    assert "Nothing changed beyond noise." in report.markdown(sample(), [])
    change = Change("orders, steps", "verdict", "exactly once", "lost", "worse")
    assert "worse orders, steps verdict exactly once lost" in Page(report.html(sample(), [change])).seen
    assert "| worse | orders, steps | verdict | exactly once | lost |" in report.markdown(sample(), [change])
    assert "worse: orders, steps, verdict: exactly once -> lost" in report.text(sample(), [change])


def test_pictures_stand_alone() -> None:
    """Each is XML with its own style in light and dark, a title, and no request."""
    found = report.pictures(showpiece())
    assert list(found) == ["overview.svg", "timelines.svg", "damage.svg", "latencies.svg"]
    for content in found.values():
        root = ET.fromstring(content)  # noqa: S314 - our own
        assert root.tag == f"{SVG}svg"
        assert root[0].tag == f"{SVG}title"
        assert "prefers-color-scheme: dark" in content
        assert not re.search(r"url\(|@import|href", content)
        width = int(root.attrib["width"])
        assert all(
            int(each.attrib["x"]) + int(each.attrib["width"]) < width for each in root.findall(f"{SVG}svg")
        )


def test_pictures_show_where_plain_repeated_most() -> None:
    """The pictures show one interruption for each scenario, among those in which all forms ran."""
    assert "orders, interrupted by signal:INT@progress:70%" in report.pictures(showpiece())["timelines.svg"]


def test_pictures_are_xml_whatever_names_hold() -> None:
    """Nothing in a name acts as markup."""
    pictures = report.pictures(hostile())
    assert len(pictures) == 3  # forms that were never tried have no overview
    for content in pictures.values():
        names = {each.tag for each in ET.fromstring(content).iter()}  # noqa: S314 - our own
        assert f"{SVG}svg" in names
        assert not {name for name in names if not name.startswith(SVG) or name == f"{SVG}script"}


def test_stays_small_with_all_there_is() -> None:
    """The page is smaller than half a megabyte."""
    assert len(report.html(showpiece(), []).encode()) < 500_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {},
            "harness run scenarios.orders --form steps --interrupt count:20 --durability 'every(seconds=1)'",
        ),
        (
            {"interruption": "kill:both@count:33", "broker": "redis", "database": "postgresql"},
            "--interrupt kill:both@count:33 --durability 'every(seconds=1)' --broker redis --database postgresql",
        ),
        (
            {"queue": "celery", "broker": "redis"},
            "--interrupt count:20 --durability 'every(seconds=1)' --queue celery --pace",
        ),
        ({"queue": "dramatiq", "broker": "rabbitmq"}, "--queue dramatiq --broker rabbitmq"),
        ({"module": "shop.jobs; rm -rf /"}, "harness run 'shop.jobs; rm -rf /' --form steps"),
    ],
    ids=["defaults", "services", "queue", "queue and broker", "hostile"],
)
def test_every_run_has_the_command_that_repeats_it(fields: dict[str, str], expected: str) -> None:
    """The table of all runs has a shell command for each run, with quoted words."""
    seen = Page(report.html(comparison(ENVIRONMENT, [run(pattern="steps", **fields)]))).seen
    assert expected in seen
    assert "--pace 0.003" in seen


def test_the_command_of_a_run_is_accepted() -> None:
    """A command that the report gives runs the same trial again."""
    made = comparison(
        ENVIRONMENT | {"pace_s": 0.0, "size": "tiny"}, [run(pattern="steps", interruption="count:5")]
    )
    words = shlex.split(command(made.runs[0], made.environment))
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words[1:], "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    again = {name: record[name] for name in ("scenario", "pattern", "interruption", "durability", "module")}
    assert again == {
        "scenario": "orders", "pattern": "steps", "interruption": "count:5", "durability": "every(seconds=1)",
        "module": "scenarios.orders",
    }  # fmt: skip


def test_the_picture_shows_what_was_done_twice(page: Page) -> None:
    """The first picture names the outcome of each form, and marks the work that plain did again."""
    made = comparison(ENVIRONMENT, runs())
    found = overview(made)
    assert found is not None
    title, picture = found
    group = chosen(made)
    assert group is not None
    (plain,) = group.of("plain")
    assert title.startswith(f"{group.scenario}: {plain.items} items, interrupted")
    assert f"{plain.duplicated:,} items done twice" in str(picture)
    assert str(picture).count('class="again"') == 1
    assert str(picture).count("every item once") == 2 * 2  # as text, and in the description
    assert page.seen.index("the same work again") < page.seen.index("When to use which")


def test_the_picture_ends_where_a_job_ended() -> None:
    """A form that has finished does not look as if it waited: its track ends with its last execution."""
    quick, slow = run(pattern="steps"), run(pattern="plain")
    for each in slow["timeline"]["executions"]:
        each["start_s"], each["end_s"] = each["start_s"] * 2, each["end_s"] * 2
        each["items"] = [[moment * 2, count] for moment, count in each["items"]]
    found = overview(comparison(ENVIRONMENT, [slow, quick]))
    assert found is not None
    tracks = [float(width) for width in re.findall(r'class="track" y="\d+" width="([\d.]+)%"', str(found[1]))]
    assert tracks[0] == 100
    assert tracks[1] < 100


def test_a_durability_that_was_not_explored_has_no_short_bar() -> None:
    """Next to explored durabilities, a durability that was only killed says so in place of a bar."""
    crashed = run("orders", "steps", "kill:horse@count:20", durability="on_stop()", repeated=7)
    other = exploration(durability="every(items=5)", repeated_most=50)
    seen = Page(report.html(comparison(ENVIRONMENT, [crashed], None, [other]))).seen
    assert "7, not explored" in seen
    assert "50, not explored" not in seen


def test_services_are_side_by_side_only_if_there_are_several(page: Page) -> None:
    """The table of queues and databases has a column for each, and is left out for a single one."""
    assert "one process: fakeredis, sqlite real workers: redis, postgresql plain" in page.seen
    assert "side by side" not in Page(report.html(sample())).seen


def test_cost_says_what_it_measures() -> None:
    """The cost of the pattern itself is in nanoseconds, and separate from the ratio on real work."""
    measured = benchmarks()
    for name, seconds in (("plain", 0.1), ("steps", 0.5)):
        entry = benchmark("orders", name, seconds)
        entry["extra_info"] |= {"kind": "pattern", "items": 1_000_000, "scenario": "the pattern itself"}
        measured["benchmarks"].append(entry)
    made = comparison(ENVIRONMENT, runs(), measured)
    for put in (lambda each: Page(report.html(each)).seen, report.markdown, report.text):
        told = put(made)
        assert "400 ns" in told
        assert "the pattern itself" not in told.replace("Cost of the pattern itself", "")
    assert "Not measured." in Page(report.html(sample())).seen
