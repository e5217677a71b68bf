"""Records become a comparison: read strictly, set side by side, added up, put into a sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.report import PATTERNS, Comparison, comparison, durables
from tests.comparisons import ENVIRONMENT, INTERRUPTIONS, ITEMS, benchmark, benchmarks, run, runs, sample
from tests.examples import examples


def compared(*records: dict[str, Any]) -> Comparison:
    """Give the comparison of these runs alone."""
    return comparison(ENVIRONMENT, records)


def refused(record: dict[str, Any]) -> str:
    """Give the message that a comparison with this run is refused with."""
    with pytest.raises(UsageError) as caught:
        compared(record)
    return str(caught.value)


class TestReading:
    """Reading of records."""

    def test_comes_back_equal_from_its_json(self) -> None:
        """A comparison is equal to what is read from the JSON it gives."""
        assert Comparison.from_json(json.loads(json.dumps(sample().to_json()))) == sample()

    @pytest.mark.parametrize("field", sorted(run()))
    def test_every_field_of_a_run_is_required(self, field: str) -> None:
        """A run without one of its fields is refused, and the field is named with its place."""
        record = run()
        del record[field]
        assert refused(record) == f"runs[0].{field}: this field is required, and is missing"

    @pytest.mark.parametrize(
        ("field", "value", "allowed"),
        [
            ("items", -1, "a whole number of 0 or more"),
            ("items", True, "a whole number of 0 or more"),
            ("items", 1.0, "a whole number of 0 or more"),
            ("elapsed_s", float("nan"), "a number of 0 or more"),
            ("elapsed_s", float("inf"), "a number of 0 or more"),
            ("elapsed_s", "1", "a number of 0 or more"),
            ("completed", 1, "true or false"),
            ("pattern", "loop", "one of plain, steps, iteration"),
            ("scenario", None, "text"),
            ("checks", [], "an object"),
        ],
    )
    def test_values_of_another_kind_are_refused(self, field: str, value: object, allowed: str) -> None:
        """A value that a field cannot have is refused, and what it can have is said."""
        message = refused(run() | {field: value})
        assert message.startswith(f"runs[0].{field}: got ")
        assert message.endswith(f"use {allowed}")

    def test_the_place_of_a_wrong_value_is_named_down_to_the_last_index(self) -> None:
        """A wrong value deep inside a timeline is named with its whole path."""
        record = copy.deepcopy(run())
        record["timeline"]["executions"][1]["items"][2] = [0.1]
        assert refused(record).startswith("runs[0].timeline.executions[1].items[2]: got [0.1]; use ")

    @pytest.mark.parametrize(
        ("verdict", "fields"),
        [
            ("exactly once", {"lost": 1}),
            ("exactly once", {"duplicated": 1}),
            ("exactly once", {"completed": False}),
            ("exactly once", {"checks": {"totals": False}}),
            ("lost", {}),
            ("duplicated", {}),
            ("never finished", {}),
        ],
    )
    def test_a_verdict_that_its_figures_contradict_is_refused(
        self, verdict: str, fields: dict[str, Any]
    ) -> None:
        """A verdict must be what the run's own figures say."""
        assert "runs[0].verdict" in refused(run(pattern="steps", verdict=verdict, **fields))

    def test_a_newer_schema_is_refused_with_the_way_out(self) -> None:
        """A file of a newer version is refused by name, and upgrading is advised."""
        with pytest.raises(UsageError, match="schema: got 2; use 1; a newer version wrote this: upgrade"):
            Comparison.from_json(sample().to_json() | {"schema": 2})

    @pytest.mark.parametrize("found", [{}, {"schema": None}, {"schema": "1"}])
    def test_no_schema_is_refused(self, found: dict[str, Any]) -> None:
        """A record that does not name its schema is refused."""
        with pytest.raises(UsageError, match="schema"):
            Comparison.from_json(found)

    def test_fields_of_others_are_left_out(self) -> None:
        """A field that is not of the contract does not disturb."""
        assert compared(run(notes="mine")) == compared(run())


class TestFile:
    """Saving and loading."""

    def test_comes_back_equal_from_its_file(self, tmp_path: Path) -> None:
        """A comparison is equal to what is loaded from the file it was saved to, and nothing else is left there."""
        path = tmp_path / "comparison.json"
        sample().save(path)
        assert Comparison.load(path) == sample()
        assert list(tmp_path.iterdir()) == [path]

    def test_a_save_that_fails_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """If the file cannot be replaced, no partial file remains."""
        (tmp_path / "comparison.json").mkdir()
        with pytest.raises(OSError, match=r"comparison\.json"):
            sample().save(tmp_path / "comparison.json")
        assert [path.name for path in tmp_path.iterdir()] == ["comparison.json"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [(None, "no such file"), ("{", "is not JSON"), ("[]", "got []; use an object")],
    )
    def test_a_file_that_holds_no_comparison_is_named(
        self, tmp_path: Path, content: str | None, message: str
    ) -> None:
        """A file that cannot be loaded is named in the message, with what is wrong with it."""
        path = tmp_path / "comparison.json"
        if content is not None:
            path.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            Comparison.load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)


class TestSideBySide:
    """Order, groups and totals."""

    @examples(20)
    @given(st.permutations(range(8)))
    def test_the_order_of_the_records_does_not_matter(self, order: list[int]) -> None:
        """The same records make the same comparison in whatever order processes deliver them."""
        records = [
            run("orders", pattern, interruption)
            for pattern in ("plain", "steps")
            for interruption in INTERRUPTIONS[:4]
        ]
        assert compared(*(records[index] for index in order)) == compared(*records)

    def test_interruptions_go_by_number(self) -> None:
        """Undisturbed runs come first, and numbers in names count by value."""
        names = ("count:100", "every:7", "none", "count:20", "count:3")
        groups = compared(*(run(interruption=name) for name in names)).groups
        assert [group.interruption for group in groups] == [
            "none", "count:3", "count:20", "count:100", "every:7",
        ]  # fmt: skip

    def test_a_group_holds_the_forms_of_the_same_work(self) -> None:
        """Runs are set side by side if scenario, interruption and services agree."""
        groups = sample().groups
        assert len(groups) == len(ITEMS) * len(INTERRUPTIONS)
        assert all([run.pattern for run in group.runs] == list(PATTERNS) for group in groups)

    def test_other_services_make_another_group(self) -> None:
        """Runs on different databases belong to different groups."""
        groups = compared(run(), run(pattern="steps", database="postgresql")).groups
        assert [(group.database, len(group.runs)) for group in groups] == [("postgresql", 1), ("sqlite", 1)]

    def test_several_durabilities_of_a_form_stand_in_one_group(self) -> None:
        """Runs of one form that differ in durability alone are all of that form in the group."""
        (group,) = compared(*(run(pattern="steps", durability=name) for name in ("on_stop()", "none"))).groups
        assert [run.durability for run in group.of("steps")] == ["none", "on_stop()"]
        assert group.of("plain") == ()

    def test_totals_add_counts_and_keep_the_largest_latency(self) -> None:
        """Totals are the sum of counts, the largest of latencies and bytes, and a count of every verdict."""
        totals = compared(
            run("orders", "plain", "count:20", stop_latency_s=0.5),
            run("orders", "plain", "every:7", stop_latency_s=None),
            run("orders", "steps", "count:20"),
        ).totals("plain")
        assert (totals.runs, totals.exactly_once, totals.interruptions) == (2, 0, 1 + 4)
        assert (totals.lost, totals.duplicated, totals.repeated) == (54, 20 + 7, 20 + 21)
        assert (totals.stop_latency_s, totals.progress_bytes) == (None, None), "plain is not asked to stop"
        assert {outcome: number for outcome, number in totals.outcomes.items() if number} == {
            "duplicated": 1,
            "never finished": 1,
        }


class TestNotHit:
    """Runs that the interruption did not reach."""

    def missed(self, **fields: Any) -> dict[str, Any]:
        """Return a run that was over before the kill."""
        undisturbed = run("orders", "steps", "none")
        return undisturbed | {"interruption": "kill:worker@progress:60%", "broker": "redis"} | fields

    def test_a_good_run_that_was_not_hit_shows_nothing(self) -> None:
        """A run with one whole execution did not survive its kill: it counts as neither good nor bad."""
        made = compared(self.missed(), run("orders", "steps", "kill:horse@count:20"))
        assert [each.outcome for each in made.runs] == ["exactly once", "not hit"]
        totals = made.totals("steps")
        assert (totals.runs, totals.exactly_once, totals.not_hit, totals.harmed) == (2, 1, 1, 0)
        assert "Killed in 1 run, steps lost nothing" in made.finding
        assert "In 1 run the interruption did not reach the job" in made.finding
        assert [each.killed for each in durables(made)] == [1]

    def test_damage_is_never_hidden(self) -> None:
        """A run that was not hit and still did harm keeps its verdict."""
        (found,) = compared(self.missed(verdict="lost", lost=1)).runs
        assert found.outcome == "lost"

    def test_an_undisturbed_run_need_not_be_hit(self) -> None:
        """A run without interruption is exactly once."""
        (found,) = compared(run("orders", "steps", "none")).runs
        assert (found.hit, found.outcome) == (False, "exactly once")

    def test_a_run_that_never_came_back_was_hit(self) -> None:
        """One execution that was killed is a hit."""
        found = run("orders", "plain")
        ended = copy.deepcopy(found["timeline"]["executions"][:1])
        ended[0]["ended"] = "killed"
        record = found | {
            "interruption": "kill:both@count:20", "executions": 1, "completed": False, "lost": 41, "duplicated": 0,
            "verdict": "never finished", "timeline": {"executions": ended},
        }  # fmt: skip
        assert [each.outcome for each in compared(record).runs] == ["never finished"]

    def test_only_forms_that_are_asked_have_a_time_to_stop(self) -> None:
        """Kills and the plain form have no time to stop."""
        kill = run("orders", "steps", "kill:horse@count:20", stop_latency_s=0.0)
        found = compared(kill, run("orders", "plain"), run("orders", "steps")).runs
        assert [each.stop_s for each in found] == [None, 0.0024, None]


class TestBenchmarks:
    """Results of pytest-benchmark."""

    def test_costs_are_compared_to_the_plain_form(self) -> None:
        """The ratio compares medians, its ends the nearest and the farthest quartiles."""
        found = {each.pattern: each for each in sample().benchmarks if each.scenario == "orders"}
        assert found["plain"].per_item_us == pytest.approx(300)
        assert found["steps"].ratio_to_plain == pytest.approx(1.06)
        assert found["steps"].ratio_low == pytest.approx(1.06 * 0.98 / 1.02)
        assert found["steps"].ratio_high == pytest.approx(1.06 * 1.02 / 0.98)

    def test_without_a_plain_form_there_is_no_ratio(self) -> None:
        """A form is not compared to what was not measured."""
        made = comparison(ENVIRONMENT, [], {"benchmarks": [benchmark("orders", "steps", 0.1)]})
        assert [each.ratio_to_plain for each in made.benchmarks] == [None]

    def test_a_single_round_has_no_spread(self) -> None:
        """Its one timing stands for both quartiles."""
        entries = [
            benchmark("orders", pattern, seconds) for pattern, seconds in (("plain", 1.0), ("steps", 2.0))
        ]
        for entry in entries:
            entry["stats"] |= {"data": [entry["stats"]["median"]], "rounds": 1}
        steps = comparison(ENVIRONMENT, [], {"benchmarks": entries}).benchmarks[1]
        assert (steps.ratio_low, steps.ratio_to_plain, steps.ratio_high) == (2.0, 2.0, 2.0)

    def test_benchmarks_of_something_else_are_left_out(self) -> None:
        """A benchmark that names no scenario is not of a job."""
        assert len(benchmarks()["benchmarks"]) == len(sample().benchmarks) + 1

    def test_a_scenario_measured_twice_is_refused(self) -> None:
        """Two benchmarks of the same form of a scenario cannot both be right."""
        twice = {"benchmarks": [benchmark("orders", "steps", 0.1)] * 2}
        with pytest.raises(UsageError, match=r"benchmarks\[1\].extra_info: got 'orders as steps again'"):
            comparison(ENVIRONMENT, [], twice)

    @pytest.mark.parametrize("stats", [{"data": []}, {"median": 0}])
    def test_timings_that_cannot_be_are_refused(self, stats: dict[str, Any]) -> None:
        """No timing, or one of no time at all, is no measurement."""
        entry = benchmark("orders", "steps", 0.1)
        entry["stats"] |= stats
        with pytest.raises(UsageError, match=r"benchmarks\[0\].stats"):
            comparison(ENVIRONMENT, [], {"benchmarks": [entry]})


class TestFinding:
    """The sentence."""

    @pytest.mark.parametrize(
        ("records", "sentence"),
        [
            ([], "There are no runs, so the report is empty."),
            (
                [run("orders", pattern) for pattern in PATTERNS],
                (
                    "Asked to stop in 2 runs, steps and iteration lost nothing and did nothing twice. "
                    "Interrupted in 1 run, the plain loop repeated 20 items and did 20 effects twice."
                ),
            ),
            (
                [run("orders", "steps", repeated=1), run("orders", "iteration")],
                (
                    "Asked to stop in 1 run, steps lost nothing and did no effect twice, but repeated 1 item. "
                    "Asked to stop in 1 run, iteration lost nothing and did nothing twice."
                ),
            ),
            (
                [run("orders", "steps", verdict="lost", lost=2)],
                "Asked to stop in 1 run, steps lost 2 items.",
            ),
            (
                [run("orders", "steps", verdict="failed")],
                "Asked to stop in 1 run, steps failed 1 run.",
            ),
            (
                [run("orders", "plain", "none")],
                "Never interrupted, the plain loop lost nothing and did nothing twice.",
            ),
            (
                [run("emails", "plain", "every:7")],
                (
                    "Interrupted in 1 run, the plain loop lost 493 items, repeated 21 items, did 7 effects twice "
                    "and did not finish 1 run."
                ),
            ),
        ],
        ids=["nothing", "all well but plain", "repeated", "lost", "failed", "undisturbed", "never finished"],
    )
    def test_says_what_the_runs_have_shown(self, records: list[dict[str, Any]], sentence: str) -> None:
        """The sentence says how often each form was interrupted, and all that went wrong."""
        assert compared(*records).finding == sentence

    def test_a_form_that_did_harm_is_never_told_to_have_done_none(self) -> None:
        """One bad run among many is reported."""
        broken = run("orders", "iteration", "flag", verdict="wrong total", checks={"totals": False})
        records = [
            each for each in runs() if (each["pattern"], each["interruption"]) != ("iteration", "flag")
        ]
        assert "runs, iteration ended" in compared(*records, broken).finding
        assert "ended with a wrong total in 1 run" in compared(*records, broken).finding
