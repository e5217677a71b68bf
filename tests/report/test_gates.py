"""Results derived from a comparison in addition to its report: gates, changes, advice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.report import PATTERNS, Comparison, advice, changes, comparison, durables, noisy, parse_gate
from tests.comparisons import ENVIRONMENT, benchmark, exploration, run, sample, showpiece, varying


def compared(*records: dict[str, Any], **more: Any) -> Comparison:
    """Give the comparison of these runs."""
    return comparison(ENVIRONMENT, records, **more)


def measured(factor: float) -> Comparison:
    """Return a comparison in which steps cost *factor* times plain."""
    entries = [benchmark("orders", "plain", 0.1), benchmark("orders", "steps", 0.1 * factor)]
    return compared(pytest_benchmark_json={"benchmarks": entries})


class TestGates:
    """Conditions that make a CI job fail."""

    @pytest.mark.parametrize(
        ("condition", "told"),
        [
            ("steps.ratio > 1.2", "steps.ratio > 1.2: found 1.3"),
            ("orders.steps.ratio>1.2", "orders.steps.ratio>1.2: found 1.3"),
            ("reports.steps.ratio > 1.2", None),
            ("steps.ratio_low > 1.4", None),
            ("steps.lost > 0", None),
            ("plain.lost >= 1", "plain.lost >= 1: found 733"),
            ("plain.harmed != 0", "plain.harmed != 0: found 25"),
            ("steps.duplicated_by_key > 0", None),
            ("steps.repeated_most > 2", "steps.repeated_most > 2: found 3"),
            ("orders.plain.runs < 10", None),
            ("steps.untried > 0", "steps.untried > 0: found 16"),
        ],
    )
    def test_a_condition_is_met_or_not(self, condition: str, told: str | None) -> None:
        """A condition that is met is reported with its figure; without a scenario the worst one counts."""
        assert parse_gate(condition).met_by(showpiece()) == told

    @given(st.floats(0, 10).map(lambda number: round(number, 3)))
    def test_either_a_condition_is_met_or_its_opposite(self, limit: float) -> None:
        """A figure is over a limit or not, never both and never neither."""
        over, under = (parse_gate(f"steps.ratio {sign} {limit}") for sign in (">", "<="))
        assert (over.met_by(measured(1.5)) is None) != (under.met_by(measured(1.5)) is None)

    @pytest.mark.parametrize(
        ("condition", "message"),
        [
            (
                "steps.ratio",
                "got the condition 'steps.ratio'; use [SCENARIO.]FORM.FIGURE OPERATOR NUMBER",
            ),
            ("steps.ratio > much", "got the condition"),
            ("loops.ratio > 1", "got the form 'loops'; use one of plain, steps, iteration"),
            ("steps.price > 1", "got the figure 'price'; use one of ratio, "),
            ("steps.ratio =! 1", "got the condition"),
        ],
    )
    def test_what_is_no_condition_is_refused(self, condition: str, message: str) -> None:
        """An unknown word is named, with what is allowed."""
        with pytest.raises(UsageError) as caught:
            parse_gate(condition)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        "condition", ["steps.ratio > 1.2", "nothing.steps.lost > 0", "steps.untried > 0"]
    )
    def test_a_figure_that_was_not_measured_is_an_error(self, condition: str) -> None:
        """A gate never passes for want of figures."""
        with pytest.raises(UsageError, match="has no such figure"):
            parse_gate(condition).met_by(compared(run(pattern="steps")))


def test_the_cost_of_a_pattern_itself_is_no_ratio_on_work() -> None:
    """Benchmarks of items without work give nanoseconds, and no other figure counts them."""
    entries = [benchmark("orders", name, 0.1 * factor) for name, factor in (("plain", 1), ("steps", 5))]
    for entry in entries:
        entry["extra_info"] |= {"kind": "pattern", "items": 1_000_000}
    made = compared(pytest_benchmark_json={"benchmarks": entries})
    assert parse_gate("steps.overhead_ns > 399").met_by(made) == "steps.overhead_ns > 399: found 400"
    with pytest.raises(UsageError, match="no such figure"):
        parse_gate("steps.ratio > 1").met_by(made)
    assert advice(made) == []
    assert Comparison.from_json(made.to_json()) == made


class TestChanges:
    """Changes between two comparisons."""

    def test_nothing_moves_against_itself(self) -> None:
        """A comparison has no change against itself."""
        assert changes(showpiece(), showpiece()) == []

    @pytest.mark.parametrize(
        ("factor", "told"),
        [
            (1.31, []),
            (1.6, ["worse: orders, steps, cost against plain: 1.30 -> 1.60"]),
            (1.05, ["better: orders, steps, cost against plain: 1.30 -> 1.05"]),
        ],
    )
    def test_costs_move_when_their_ranges_do_not_overlap(self, factor: float, told: list[str]) -> None:
        """A ratio that lies in the spread of the other is noise."""
        assert [str(each) for each in changes(measured(1.3), measured(factor))] == told

    def test_verdicts_have_no_noise(self) -> None:
        """Every verdict that changed is reported, with whether it became better or worse."""
        good, bad = compared(run(pattern="steps")), compared(run(pattern="steps", verdict="lost", lost=1))
        where = "orders, steps, count:20, every(seconds=1), fakeredis, sqlite, verdict"
        assert [str(each) for each in changes(good, bad)] == [f"worse: {where}: exactly once -> lost"]
        assert [str(each) for each in changes(bad, good)] == [f"better: {where}: lost -> exactly once"]

    def test_counts_move_from_nothing_and_to_nothing(self) -> None:
        """A first repeated item is reported; one more is not, because interruptions hit different items each time."""
        none, one, two = (compared(run(pattern="steps", repeated=count)) for count in (0, 1, 2))
        assert [each.direction for each in changes(none, one)] == ["worse"]
        assert [each.direction for each in changes(two, none)] == ["better"]
        assert changes(one, two) == []

    def test_runs_that_came_or_went_are_told(self) -> None:
        """A run that is no longer made could hide a loss."""
        one, other = compared(run()), compared(run(interruption="flag"))
        assert [each.direction for each in changes(one, other)] == ["gone", "new"]

    def test_latencies_move_when_their_middle_halves_do_not_overlap(self) -> None:
        """Latencies are compared over all runs of a scenario and form on one broker."""

        def slow(factor: float) -> Comparison:
            latencies = {"flag": 0.1, "count:20": 0.11, "every:7": 0.12}
            return compared(
                *(run("orders", "steps", name, stop_latency_s=s * factor) for name, s in latencies.items())
            )

        assert changes(slow(1), slow(1.05)) == []
        assert [str(each) for each in changes(slow(1), slow(2))] == [
            "worse: orders, steps, fakeredis, stop latency: 0.11 s -> 0.22 s"
        ]


class TestDurabilities:
    """Cost of each durability, and of a SIGKILL under it."""

    def test_are_set_beside_each_other(self) -> None:
        """A row is a form under a durability, with the worst of its killed runs and its cost."""
        found = {(each.durability, each.pattern): each for each in durables(showpiece())}
        assert list(found) == [
            ("none", "plain"), ("every(items=5)", "steps"), ("with_transaction()", "steps"),
        ]  # fmt: skip
        weak, strong = found["every(items=5)", "steps"], found["with_transaction()", "steps"]
        assert (weak.killed, weak.repeated_most, weak.by_key) == (2, 3, 0)
        assert (strong.killed, strong.repeated_most) == (1, 0)
        assert weak.cost is not None
        assert weak.cost.ratio_to_plain == pytest.approx(1.1)

    def test_the_finding_tells_killed_runs_apart(self) -> None:
        """The finding counts killed runs separately from runs that were asked to stop."""
        assert (
            "Killed in 3 runs, steps lost nothing, repeated at most 3 items a run and did 3 effects twice, "
            "none of them in runs under with_transaction()."
        ) in showpiece().finding

    def test_the_finding_says_no_more_than_happened(self) -> None:
        """If no effect was doubled, the finding does not mention doubled effects."""
        again = run("orders", "steps", "kill:horse@count:20", durability="with_transaction()", repeated=1)
        assert (
            compared(again).finding
            == "Killed in 1 run, steps lost nothing and repeated at most 1 item a run."
        )


class TestAdvice:
    """Advice on when to use which form."""

    def test_every_rule_is_told_with_its_figures(self) -> None:
        """An answer comes with the rule that gave it and what the rule was applied to."""
        given = {each.question: each for each in advice(showpiece())}
        assert given["Is a plain loop enough?"].figures == "25 of 25 interrupted runs lost or repeated work"
        assert given["Which durability?"].short == "with_transaction()"
        assert (
            "3 effects done twice in 1 run, 0 after copies" in given["Is an idempotency key needed?"].figures
        )
        assert all(each.rule and each.figures and each.answer for each in given.values())

    def test_costs_decide_only_where_their_ranges_do_not_overlap(self) -> None:
        """A difference within the spread decides nothing."""
        (same,) = (each for each in advice(sample()) if each.question == "Which pattern?")
        assert "The cost does not decide." in same.answer
        for dear, cheap in (("iteration", "steps"), ("steps", "iteration")):
            costs = {"plain": 0.1, cheap: 0.1, dear: 0.2}
            entries = [benchmark("orders", *each) for each in costs.items()]
            (other,) = advice(compared(pytest_benchmark_json={"benchmarks": entries}))
            assert other.answer.endswith(f"Cheaper: {cheap} for orders.")

    def test_costs_decide_nothing_where_plain_itself_varies(self) -> None:
        """If plain varies too much, costs decide nothing, however far apart the forms are."""
        (given,) = advice(varying())
        assert "heaper" not in given.answer
        assert given.answer.endswith("Too noisy to compare: orders.")
        assert "plain 0.54 to 1.86" in given.figures

    def test_a_range_up_to_the_limit_is_no_noise(self) -> None:
        """A range is noise only if one of its ends is farther from 1 than the limit."""
        for spread, found in ((0.1, []), (0.2, ["orders"])):
            entry = benchmark("orders", "plain", 0.1)
            entry["stats"]["data"] = [0.1, 0.1, 0.1, 0.1 * (1 + spread), 0.1 * (1 + spread)]
            assert list(noisy(compared(pytest_benchmark_json={"benchmarks": [entry]}))) == found

    def test_advice_knows_what_the_explorer_found(self) -> None:
        """The durability advised is the one that repeats least over kills and crashes, and the rest is named."""
        crashed = [
            exploration(scenario=name, durability=durability, repeated_most=most, verdict=verdict)
            for name, durability, most, verdict in (
                ("emails", "with_transaction()", 50, "at least once, repeated ≤ 50"),
                ("orders", "with_transaction()", 0, "exactly once"),
                ("emails", "on_stop()", 50, "at least once, repeated ≤ 50"),
                ("orders", "on_stop()", 13, "at least once, repeated ≤ 13"),
            )
        ]
        made = compared(
            run("emails", "steps", "kill:horse@count:20", durability="with_transaction()"),
            explorations=crashed,
        )
        (given,) = (each for each in advice(made) if each.question == "Which durability?")
        assert given.short == "with_transaction()"
        assert "nothing in orders, up to 50 items in emails" in given.answer
        assert "idempotency key" in given.answer
        assert "in emails/orders: with_transaction() 50/0; on_stop() 50/13" in given.figures
        assert (
            "Under with_transaction(), these crashes repeated nothing in orders and up to 50 items in emails."
            in made.finding
        )

    def test_durabilities_that_are_alike_are_not_ranked(self) -> None:
        """Where all repeated the same, none is advised; a single one is not said to be better than others."""
        kills = [
            run("orders", "steps", "kill:horse@count:20", durability=name)
            for name in ("every(seconds=1)", "on_stop()")
        ]
        answers = [
            {each.question: each for each in advice(compared(*some))}["Which durability?"]
            for some in (kills, kills[:1])
        ]
        assert [each.short for each in answers] == ["No difference here", "every(seconds=1)"]
        assert [each.answer.partition(" nothing")[0] for each in answers] == [
            "After a crash, all repeated the same:",
            "No other one was tried. After a crash, it repeated",
        ]

    def test_a_durability_that_was_tried_less_is_not_advised(self) -> None:
        """A durability that was only killed, and repeated nothing then, does not beat one that was explored."""
        kill = run("orders", "steps", "kill:horse@count:20", durability="every(seconds=1)")
        crashed = exploration(durability="on_stop()", repeated_most=13)
        (given,) = (
            each for each in advice(compared(kill, explorations=[crashed])) if "durability" in each.question
        )
        assert given.short == "on_stop()"
        assert "every(seconds=1) 0 (kills only)" in given.figures
        (given,) = (each for each in advice(compared(kill)) if "durability" in each.question)
        assert given.short == "every(seconds=1)"

    def test_durabilities_are_compared_where_both_were_tried(self) -> None:
        """The durability that repeated less in the same scenarios is advised, also if the other one was explored."""
        kills = [
            run("orders", "steps", "kill:horse@count:20", durability=name, repeated=most)
            for name, most in (("on_stop()", 20), ("with_transaction()", 0))
        ]
        made = compared(*kills, explorations=[exploration(durability="on_stop()", repeated_most=13)])
        (given,) = (each for each in advice(made) if "durability" in each.question)
        assert given.short == "with_transaction()"

    def test_a_pattern_below_the_plain_loop_is_noise(self) -> None:
        """A form that seems cheaper than plain, which does less, is not called the cheaper one."""
        costs = {"plain": 0.1, "steps": 0.08, "iteration": 0.12}
        entries = [benchmark("orders", *each) for each in costs.items()]
        (given,) = advice(compared(pytest_benchmark_json={"benchmarks": entries}))
        assert given.answer.endswith("The cost does not decide.")
        assert "times plain: steps 0.80, iteration 1.20" in given.figures

    def test_without_costs_the_pattern_is_advised_by_its_runs(self) -> None:
        """All four questions are answered without a benchmark, each with figures."""
        kills = [run("orders", name, "kill:horse@count:20", durability="on_stop()") for name in PATTERNS]
        given = advice(compared(*(run("orders", name) for name in PATTERNS), *kills))
        assert len(given) == 4
        (pattern,) = (each for each in given if each.question == "Which pattern?")
        assert pattern.answer.endswith("The cost was not measured.")
        assert (
            pattern.figures
            == "Exactly once: steps in 2 of 2 interrupted runs; iteration in 2 of 2 interrupted runs"
        )

    def test_a_pattern_that_lost_work_is_advised_against(self) -> None:
        """A lost item or a lost exploration rules a pattern out, whatever it costs."""
        costs = {"plain": 0.1, "steps": 0.1, "iteration": 0.2}
        measured = {"benchmarks": [benchmark("orders", *each) for each in costs.items()]}
        lost = run("orders", "steps", "flag", verdict="lost", lost=1)
        for made in (
            compared(lost, pytest_benchmark_json=measured),
            compared(explorations=[exploration(verdict="lost")], pytest_benchmark_json=measured),
        ):
            (given,) = (each for each in advice(made) if each.question == "Which pattern?")
            assert given.short == "Iteration"
            assert "Not steps" in given.answer

    def test_without_figures_there_is_none(self) -> None:
        """Nothing is advised of what was not tried."""
        assert advice(compared()) == []


def test_what_was_written_before_there_were_explorations_is_read() -> None:
    """Fields that came later may be missing in a file."""
    data = showpiece().to_json()
    del data["explorations"]
    for each in data["benchmarks"]:
        del each["durability"]
    old = Comparison.from_json(data | {"benchmarks": data["benchmarks"][:3]})
    assert old.explorations == ()
    assert {each.durability for each in old.benchmarks} == {None}


@pytest.mark.parametrize("field", sorted(exploration()))
def test_every_field_of_an_exploration_is_required(field: str) -> None:
    """An exploration without one of its fields is refused by name."""
    found = exploration()
    del found[field]
    with pytest.raises(UsageError, match=rf"explorations\[0\]\.{field}: this field is required"):
        compared(explorations=[found])
