"""Sections of the report after the verdicts: damage, latencies, durability, coverage, advice, changes, pictures."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from harness import report
from harness.report import Change, advice, comparison
from tests.comparisons import ENVIRONMENT, killed, run, sample, showpiece, varying
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
        "every(items=5) steps 2 3 3 0",
        "at least once, repeated ≤ 5 210 48 of 64 8 of 9 120 5 2.50 s",
        "25 of 25 interrupted runs ended otherwise than exactly once",
        "the broker is a Redis server",
        "one that went wrong proves that it can",
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
    for words in ("Not measured.", "Nothing was killed", "Not explored", "Nothing was interrupted."):
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
    for words in ("\N{EN DASH} not tried", "by key duplicated items that are left when copies are removed"):
        assert page.seen.index(words) < first
    assert "*\N{EN DASH}*: not tried" in report.markdown(showpiece())


def test_a_name_is_not_broken_before_its_number() -> None:
    """A name may be broken anywhere but before its number."""
    told = report.html(comparison(ENVIRONMENT, [run(interruption="kill:both@count:33")]))
    assert "kill:<wbr>both@<wbr>count:33" in told


def test_changes_are_told_only_against_another() -> None:
    """Only with another comparison does the page have this section and a link to it, even if nothing changed."""
    assert "What moved" not in report.html(sample()) + report.markdown(sample())
    assert "Nothing moved beyond noise." in Page(report.html(sample(), [])).seen
    assert "Nothing moved beyond noise." in report.markdown(sample(), [])
    change = Change("orders, steps", "verdict", "exactly once", "lost", "worse")
    assert "worse orders, steps verdict exactly once lost" in Page(report.html(sample(), [change])).seen
    assert "| worse | orders, steps | verdict | exactly once | lost |" in report.markdown(sample(), [change])
    assert "worse: orders, steps, verdict: exactly once -> lost" in report.text(sample(), [change])


def test_pictures_stand_alone() -> None:
    """Each is XML with its own style in light and dark, a title, and no request."""
    found = report.pictures(showpiece())
    assert list(found) == ["timelines.svg", "damage.svg", "latencies.svg"]
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
    assert len(pictures) == 3
    for content in pictures.values():
        names = {each.tag for each in ET.fromstring(content).iter()}  # noqa: S314 - our own
        assert f"{SVG}svg" in names
        assert not {name for name in names if not name.startswith(SVG) or name == f"{SVG}script"}


def test_stays_small_with_all_there_is() -> None:
    """The page is smaller than half a megabyte."""
    assert len(report.html(showpiece(), []).encode()) < 500_000
