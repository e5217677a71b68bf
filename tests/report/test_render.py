"""A comparison is put for terminals, for CI jobs and for people to look at; nothing it holds acts as markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from harness import report
from harness.interruptions import ALLOWED, parse_interruption
from harness.report import PATTERNS, Comparison, Group, comparison, timelines
from tests.comparisons import ENVIRONMENT, INTERRUPTIONS, ITEMS, benchmark, run, sample

HOSTILE = "<script>alert(1)</script>|`*_&\"'\n\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}$finding"
VOID = {"meta", "link", "wbr", "br", "input"}


def compared(*records: dict[str, Any]) -> Comparison:
    """Give the comparison of these runs alone."""
    return comparison(ENVIRONMENT, records)


def hostile() -> Comparison:
    """Give a comparison with markup and control characters wherever it takes free text."""
    environment = ENVIRONMENT | dict.fromkeys(("python", "platform", "size", "generated"), HOSTILE)
    names = {"scenario": HOSTILE, "interruption": HOSTILE, "broker": HOSTILE, "database": HOSTILE}
    record = run(**names, durability=HOSTILE, checks={HOSTILE: False})
    twin = record | {"durability": "none"}
    other = record | {"database": "sqlite"}
    measured = benchmark("orders", "plain", 0.1)
    measured["extra_info"]["scenario"] = HOSTILE
    made = environment | {"packages": {HOSTILE: HOSTILE}}
    return comparison(made, [record, twin, other], {"benchmarks": [measured]})


def timeline_of(group: Group) -> str:
    """Return the picture of a group."""
    return str(timelines.timeline(group))


class Page(HTMLParser):
    """Reads a page: its elements with their attributes, its text, and whether its tags are balanced."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.pictures: list[dict[str, Any]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element down; a picture within a picture is a part of it."""
        self.elements.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "svg" and "svg" not in self.open:
            self.pictures.append(dict(attrs) | {"within": []})
        elif "svg" in self.open:
            self.pictures[-1]["within"].append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element down that closes itself."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Fail where a tag closes another than the last one opened."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Record the visible text."""
        if not {"style", "script", "title", "desc"} & set(self.open):
            self.text.append(data)

    @property
    def seen(self) -> str:
        """The text that is seen, with single spaces."""
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page() -> Page:
    """Read the page of the whole sample."""
    return Page(report.html(sample()))


class TestText:
    """The table for terminals."""

    def test_fits_into_80_columns(self) -> None:
        """No line is wider than a terminal, and none ends in blanks."""
        lines = report.text(sample()).splitlines()
        assert max(map(len, lines)) <= 80
        assert all(line == line.rstrip() for line in lines)

    def test_has_a_row_for_every_scenario_and_form(self) -> None:
        """A row says what was run and lost, and how the runs ended, verdict by verdict."""
        lines = report.text(sample()).splitlines()
        start = lines.index(next(line for line in lines if line.startswith("orders   plain")))
        assert lines[start].split() == ["orders", "plain", "9", "1", "0", "54", "167", "181"]
        end = lines.index("")
        rows = [tuple(line.split()[:2]) for line in lines[1:end]]
        assert rows == [(scenario, pattern) for scenario in sorted(ITEMS) for pattern in PATTERNS]

    def test_ends_with_finding_and_ratios(self) -> None:
        """After the table come the finding, whole, and the cost of every form with its ratio."""
        told = " ".join(report.text(sample()).split())
        assert sample().finding in told
        assert (
            "orders steps \N{EN DASH} 318.0 µs 12.7 µs 1.06\N{MULTIPLICATION SIGN} 1.02\N{EN DASH}1.10"
            in told
        )


class TestMarkdown:
    """The summary of a CI job."""

    def test_has_finding_verdicts_and_cost(self) -> None:
        """The finding is followed by a row for every interruption of a scenario, and one for every benchmark."""
        told = report.markdown(sample())
        assert sample().finding in told
        rows = told.splitlines()
        costs = [line for line in rows if re.match(r"\| (emails|orders|reports) ", line)]
        assert len(costs) == len(ITEMS) * len(PATTERNS)
        found = [
            line for line in rows if re.match(r"\| (none|count|every|time|progress|flag|after|signal)", line)
        ]
        assert len(found) == len(ITEMS) * len(INTERRUPTIONS)
        cells = "2\N{MULTIPLICATION SIGN} duplicated (20 of 61) | ✓ exactly once | ✓ exactly once |"
        assert f"| count:20 | {cells}" in rows

    def test_every_row_has_the_columns_of_its_head(self) -> None:
        """A name of any content neither adds a column to a table nor breaks a row."""
        for block in report.markdown(hostile()).split("\n\n"):
            if block.startswith("|"):
                assert len({line.count("|") for line in block.splitlines()}) == 1

    def test_nothing_acts_as_markup(self) -> None:
        """Names come out as text: no tag but our own line breaks, no control character."""
        told = report.markdown(hostile())
        assert set(re.findall(r"<[^>]*>", told)) <= {"<br>"}
        assert all(each.isprintable() for each in told.replace("\n", ""))


class TestHtml:
    """The page."""

    def test_is_well_formed(self, page: Page) -> None:
        """Every tag is closed in order, and no id is given twice."""
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert page.open == []
        assert len(ids) == len(set(ids))

    def test_asks_for_nothing_from_outside(self, page: Page) -> None:
        """The page has one script of its own, a policy that forbids all requests, and references to itself only."""
        assert not {"img", "iframe", "object"} & {tag for tag, _ in page.elements}
        assert [attributes for tag, attributes in page.elements if tag == "script"] == [{}]
        policies = [str(each["content"]) for _, each in page.elements if "http-equiv" in each]
        assert len(policies) == 1
        assert policies[0].startswith("default-src 'none'; ")
        for _, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "src"]
            assert re.match("#|data:,", attributes.get("href") or "#")
        assert not re.search(r"url\(|@import|https?:", report.html(sample()))

    def test_links_lead_somewhere(self, page: Page) -> None:
        """Every link within the page has its target."""
        ids = {attributes.get("id") for _, attributes in page.elements}
        links = [str(attributes["href"])[1:] for tag, attributes in page.elements if tag == "a"]
        assert links
        assert set(links) <= ids

    def test_tells_the_finding_first(self, page: Page) -> None:
        """The first thing after the title is the finding."""
        assert page.seen.index(sample().finding) < 120

    def test_headings_skip_no_level(self, page: Page) -> None:
        """One title, and below a heading the next level at most."""
        assert page.headings.count(1) == 1
        assert all(
            after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False)
        )

    def test_every_picture_has_a_title_and_a_description(self, page: Page) -> None:
        """Every group, benchmark, scenario, latency and the whole has a picture, each described in words as well."""
        assert len(page.pictures) == len(sample().groups) + len(sample().benchmarks) + len(ITEMS) + 2 + 1
        for picture in page.pictures:
            assert picture["role"] == "img"
            assert picture["within"][:2] == ["title", "desc"]

    def test_pictures_of_different_services_have_different_names(self) -> None:
        """The names alone distinguish pictures of the same interruption with real workers and without."""
        told = report.html(compared(run(broker="redis"), run(broker="fakeredis")))
        titles = re.findall(r"<title>(orders, .*?: executions over time)</title>", told)
        assert len(set(titles)) == len(titles) == 2

    def test_tables_scroll_in_boxes_of_their_own(self, page: Page) -> None:
        """Every table lies in a named region that the keyboard reaches."""
        boxes = [attributes for _, attributes in page.elements if "scroll" in (attributes.get("class") or "")]
        assert len(boxes) == sum(tag == "table" for tag, _ in page.elements)
        assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in boxes)

    @pytest.mark.parametrize(
        "words",
        [
            "lost items whose effect never happened",
            "duplicated items whose effect happened more than once",
            "repeated items run again, with or without a visible effect",
            "the lab stops it at that item, like SIGKILL at the end of a grace period",
            "the broker is fakeredis",
            "the database is a file of SQLite",
            "Linux x86_64, 2 CPUs",
            "never finished 54 lost, 7 duplicated",
            "duplicated 20 of 61",
        ],
    )
    def test_says_plainly(self, page: Page, words: str) -> None:
        """The page explains its columns, says what is simulated and where, and how much a verdict is about."""
        assert words in page.seen

    def test_says_nothing_of_services_that_were_not_used(self) -> None:
        """Notes on fakeredis and SQLite are left out if the runs used other services."""
        seen = Page(report.html(compared(run(broker="redis", database="postgresql")))).seen
        assert "the broker is fakeredis" not in seen
        assert "the database is a file of SQLite" not in seen

    @pytest.mark.parametrize("kind", sorted(set(re.findall(r"(?:^|, )([a-z-]+)", ALLOWED))))
    def test_explains_every_kind_of_interruption(self, kind: str) -> None:
        """The page explains every kind of interruption."""
        arguments = {
            "time": "1s",
            "progress": "40%",
            "signal": "TERM",
            "kill": "horse",
            "none": "",
            "flag": "",
        }
        name = parse_interruption(f"{kind}:{arguments.get(kind, '7')}".rstrip(":")).name
        assert f"<dt>{kind}</dt>" in report.html(compared(run(interruption=name)))

    def test_names_durabilities_where_there_are_several(self) -> None:
        """Two runs of one form in a group are distinguished by their durability; a single run does not name it."""
        records = [run(pattern="steps", durability=name) for name in ("on_stop()", "with_transaction()")]
        assert "steps, with_transaction()" in Page(report.html(compared(*records))).seen
        assert "steps, with_transaction()" not in Page(report.html(compared(records[1]))).seen

    def test_nothing_acts_as_markup(self) -> None:
        """Names come out as text, and control characters do not come out at all."""
        source = report.html(hostile())
        page = Page(source)
        assert page.open == []
        assert [tag for tag, _ in page.elements].count("script") == 1
        assert "<script>alert(1)</script>|`*_&\"'" in page.seen
        assert all(each.isprintable() for each in source.replace("\n", ""))

    def test_stays_small(self) -> None:
        """The page of 81 runs, some with 72 executions, is smaller than half a megabyte."""
        assert len(sample().runs) == 81
        assert len(report.html(sample()).encode()) < 500_000

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_has_contrast(self, scheme: str) -> None:
        """Text has a contrast of 4.5 to 1 or more (WCAG AA), in light and in dark."""
        colours = palette(scheme)
        pairs = [(text, "paper") for text in ("ink", "quiet", "good", "bad", "link")]
        pairs += [("bad", "bad-tint"), ("good", "good-tint"), ("on-bad", "bad")]
        too_faint = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
        assert not {pair: found for pair, found in too_faint.items() if found < 4.5}


class TestTimeline:
    """The picture of a group."""

    def test_is_well_formed(self) -> None:
        """A timeline is XML, whatever the names hold."""
        (*_, last) = hostile().groups
        assert ET.fromstring(timeline_of(last)).tag == "svg"  # noqa: S314 - our own

    def test_tells_cut_off_from_stopped(self) -> None:
        """A polite stop and a cut have marks of different shapes."""
        (cut,) = compared(run(pattern="plain")).groups
        (stopped,) = compared(run(pattern="steps")).groups
        assert 'class="harsh"' in timeline_of(cut)
        assert 'class="polite"' not in timeline_of(cut)
        assert 'class="polite"' in timeline_of(stopped)
        assert 'class="harsh"' not in timeline_of(stopped)

    def test_plain_starts_again_from_the_bottom(self) -> None:
        """After an interruption the line of the plain form begins at nothing done, that of the others goes on."""
        heights = {}
        for pattern in ("plain", "steps"):
            (group,) = compared(run(pattern=pattern)).groups
            found = re.search(r'class="line" d="([^"]*)"', timeline_of(group))
            assert found
            heights[pattern] = [int(path.split("L")[0].split()[1]) for path in found[1].split("M")[1:]]
        assert heights["plain"][0] == heights["plain"][1] > heights["steps"][1]

    def test_thousands_of_executions_stay_small(self) -> None:
        """Details finer than a pixel are not drawn twice."""
        executions = [
            {
                "start_s": index / 100,
                "end_s": (index + 1) / 100,
                "ended": "interrupted",
                "reason": "every:1",
                "items": [[index / 100, 1]],
            }
            for index in range(5_000)
        ]
        record = run(pattern="steps", executions=5_000, items=5_000, timeline={"executions": executions})
        (group,) = compared(record).groups
        assert len(timeline_of(group)) < 250_000

    def test_a_run_without_executions_has_a_picture(self) -> None:
        """A group in which nothing was executed is drawn empty."""
        (group,) = compared(run(pattern="steps", timeline={"executions": []})).groups
        assert timeline_of(group).startswith("<svg")


class TestAll:
    """Rules for every output."""

    def test_nothing_measured_is_told_as_such(self) -> None:
        """A comparison without runs and benchmarks is put without an error, with its finding."""
        for put in (report.text, report.markdown, report.html):
            assert "There are no runs, so the report is empty." in put(compared())

    def test_terminals_are_not_steered(self) -> None:
        """Control characters in names do not reach the terminal."""
        assert all(each.isprintable() for each in report.text(hostile()).replace("\n", ""))

    def test_writes_its_files_and_nothing_else(self, tmp_path: Path) -> None:
        """JSON, Markdown, HTML and pictures lie side by side, and the JSON is read back equal."""
        report.write(sample(), tmp_path)
        names = ["comparison.html", "comparison.json", "comparison.md", *report.pictures(sample())]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
        assert Comparison.load(tmp_path / "comparison.json") == sample()
        assert (tmp_path / "comparison.html").read_text(encoding="utf-8") == report.html(sample())
        assert (tmp_path / "comparison.md").read_text(encoding="utf-8") == report.markdown(sample())

    def test_a_write_that_fails_leaves_no_half_file(self, tmp_path: Path) -> None:
        """If a file cannot be replaced, no partial file remains."""
        (tmp_path / "comparison.html").mkdir()
        with pytest.raises(OSError, match=r"comparison\.html"):
            report.write(sample(), tmp_path)
        assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def palette(scheme: str) -> dict[str, str]:
    """Give the colours that the page's style names for light or dark."""
    style = (files("harness.report") / "templates" / "report.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", part)) for part in style.split("@media", 2)[:2]
    )
    return {"light": light, "dark": dark}[scheme]


def contrast(one: str, other: str) -> float:
    """Give the contrast ratio of two colours, by WCAG 2."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    """Give the relative luminance of a colour, by WCAG 2."""
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    channels = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
