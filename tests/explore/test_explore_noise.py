"""Noise: only cells that differ between two clean runs are left out, and the verdict lists them."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from harness.errors import UsageError
from harness.explore.outcomes import Reference, reading
from harness.explore.tables import Contents, Table

COLUMNS = ("name", "value")
FORMS = [
    "at %Y-%m-%d %H:%M:%S,", "[%Y-%m-%dT%H:%M:%SZ]", "From MAILER-DAEMON %a %b %d %H:%M:%S %Y",
    "Date: %a, %d %b %Y %H:%M:%S +0000", "[%d/%b/%Y:%H:%M:%S +0000]", "at {seconds}",
]  # fmt: skip
"""Times with whole seconds, as logs and mailboxes have them."""


def a_moment_ago() -> float:
    """Return a time before the values of a test: a long run must not make more of them a present time."""
    return time.time() - 1


def keyed(*rows: Any, **options: Any) -> Contents:
    """Return one table of names and values, known by name."""
    return {"t": Table(COLUMNS, list(rows), key=(0,), **options)}


def unkeyed(*rows: Any, **options: Any) -> Contents:
    """Return one table of names and values without a key."""
    return {"t": Table(COLUMNS, list(rows), **options)}


def lines(*rows: str) -> Contents:
    """Return the lines of a file."""
    return {"file a": Table(("line",), [(row,) for row in rows], unnamed=True)}


def compare(first: Contents, runs: tuple[Contents, Contents], found: Contents) -> tuple[list[str], list[str]]:
    """Return the differences of what was found, with their kinds, and what was not compared."""
    reference = Reference(first, *runs, began=a_moment_ago())
    return [f"{each.kind}: {each}" for each in reference.differences(found)], reference.ignored


@pytest.mark.parametrize("make", [keyed, unkeyed])
def test_one_noisy_cell_hides_no_other_row(make: Any) -> None:
    """A random value in one row leaves the value of every other row compared, with a key or without one."""
    runs = make(("run", 0.25), ("sum", 600)), make(("run", 0.75), ("sum", 600))
    assert compare(make(), runs, make(("run", 0.5), ("sum", 600)))[0] == []
    found, ignored = compare(make(), runs, make(("run", 0.5), ("sum", 700)))
    assert [each.partition(":")[0] for each in found] == ["wrong total"]
    assert "700" in found[0]
    where = "t(name='run').value" if make is keyed else "t.value in 1 of 2 rows"
    assert ignored == [f"{where}: differs between two clean runs"]


def test_rows_in_another_order_are_the_same_rows() -> None:
    """Rows that threads insert in another order are no difference, and hide none."""
    runs = unkeyed(("a", 1), ("b", 2), ("c", 3)), unkeyed(("c", 3), ("a", 1), ("b", 2))
    found, ignored = compare(unkeyed(), runs, unkeyed(("b", 2), ("c", 3), ("a", 1)))
    assert (found, ignored) == ([], [])
    found, _ = compare(unkeyed(), runs, unkeyed(("b", 2), ("c", 4), ("a", 1)))
    assert found == ["wrong total: t: (name='c', value=4), not (name='c', value=3)"]


def test_the_id_of_an_entry_in_a_stream_is_a_time() -> None:
    """Two entries of one millisecond differ in what follows the time, which is no difference either."""
    now = int(time.time() * 1000)
    runs = unkeyed((f"{now}-0", 1)), unkeyed((f"{now + 5}-0", 1))
    assert compare(unkeyed(), runs, unkeyed((f"{now + 9}-1", 1)))[0] == []
    assert compare(unkeyed(), runs, unkeyed((f"{now + 9}-1", 2)))[0] != []


def test_numbers_that_the_database_gives_may_change_places() -> None:
    """Rows with other automatic keys are the same rows; keys that the job chose are compared."""
    runs = keyed((1, "a"), (2, "b"), numbered=True), keyed((1, "b"), (2, "a"), numbered=True)
    found, ignored = compare(keyed(numbered=True), runs, keyed((4, "a"), (9, "b"), numbered=True))
    assert found == []
    assert ignored == ["t.name of new rows: numbers that the database gives"]
    chosen = keyed((7, "a"), (12, "a"), numbered=True)
    found, ignored = compare(
        keyed(numbered=True), (chosen, chosen), keyed((7, "a"), (13, "a"), numbered=True)
    )
    assert [each.partition(":")[0] for each in found] == ["lost", "duplicated"]
    assert ignored == []


def test_references_to_automatic_numbers_mean_the_row() -> None:
    """A child row refers to its parent's content, whatever number the database gave to the parent."""

    def orders(*numbers: int, of: tuple[int, int] = (0, 1)) -> Contents:
        return {
            "orders": Table(("id", "name"), list(zip(numbers, "ab", strict=True)), key=(0,), numbered=True),
            "lines": Table(
                ("order_id", "sku"),
                [(numbers[of[0]], "x"), (numbers[of[1]], "y")],
                references=((0, "orders"),),
            ),
        }

    first = {name: Table(t.columns, [], t.key, t.numbered) for name, t in orders(1, 2).items()}
    runs = orders(1, 2), orders(1, 2)
    assert compare(first, runs, orders(1, 4))[0] == []
    assert compare(first, runs, orders(4, 9, of=(0, 0)))[0] != []


def test_rows_with_random_keys_are_matched_by_their_other_cells() -> None:
    """A row under a random key is known by the rest of it, and one too many is found."""

    def under(*values: int) -> Contents:
        return keyed(*((str(uuid.uuid4()), value) for value in values))

    runs = under(1, 2), under(1, 2)
    assert compare(keyed(), runs, under(2, 1)) == (
        [],
        ["t.name in 2 of 2 rows: its times and random ids differ between two clean runs"],
    )
    assert compare(keyed(), runs, under(1, 2, 2))[0] == [
        "duplicated: t: (name='random id', value=2), 2 times"
    ]
    assert compare(keyed(), runs, under(1))[0] == ["lost: t: no row (name='random id', value=2)"]
    assert compare(keyed(), runs, under(1, 3))[0] == [
        "wrong total: t: (name='random id', value=3), not (name='random id', value=2)"
    ]


def test_a_key_that_comes_twice_counts_twice() -> None:
    """A second row with the same key is not merged with the first."""
    rows = keyed(("a", 1))
    assert compare(keyed(), (rows, rows), keyed(("a", 1), ("a", 1)))[0] != []


def test_lines_are_compared_without_their_times() -> None:
    """A line that begins with the time is known by its other words; a line too many or too few is found."""

    def log(*numbers: int) -> Contents:
        return lines(*(f"{datetime.now(UTC).isoformat()} paid invoice {number}" for number in numbers))

    runs = log(1, 2, 3), log(1, 2, 3)
    found, ignored = compare(log(), runs, log(3, 1, 2))
    assert found == []
    assert ignored == ["file a.line in 3 of 3 rows: the time of the run"]
    assert [each.partition(":")[0] for each in compare(log(), runs, log(1, 2, 2))[0]] == [
        "lost",
        "duplicated",
    ]
    assert len(compare(log(), runs, log(1, 2, 3, 3))[0]) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_time_inside_a_text_is_the_time_of_the_run_even_if_two_clean_runs_show_the_same(form: str) -> None:
    """Two quick runs show the same second: a later one is no difference, and another day is."""
    now = datetime.now(UTC)

    def line(moment: datetime, number: int = 7) -> Contents:
        text = moment.strftime(form).format(seconds=int(moment.timestamp()))
        return lines(f"{text} paid invoice {number}")

    runs, began = (line(now), line(now)), a_moment_ago() - 5
    reference = Reference(lines(), *runs, began=began)
    assert reference.differences(line(now - timedelta(seconds=2))) == []
    assert reference.differences(line(now - timedelta(days=400, hours=3))) != []
    assert reference.differences(line(now, 8)) != []
    expiry = Reference(lines(), *(line(now + timedelta(hours=5)) for _ in "12"), began=began)
    assert expiry.differences(line(now + timedelta(hours=5, seconds=2))) == []
    assert expiry.differences(line(now + timedelta(hours=7))) != []


def test_only_the_words_of_a_line_that_differ_are_left_out() -> None:
    """A measured number in a line hides that number alone."""
    runs = lines("paid 7 in 3 ms", "total 5"), lines("paid 7 in 4 ms", "total 5")
    assert compare({}, runs, lines("total 5", "paid 7 in 9 ms"))[0] == []
    assert compare({}, runs, lines("total 5", "paid 8 in 9 ms"))[0] != []
    assert compare({}, runs, lines("total 6", "paid 7 in 9 ms"))[0] != []


def test_a_noisy_cell_must_still_be_set() -> None:
    """A value that differs in each run is compared as set or not set."""
    runs = keyed(("a", "once"), ("b", 1)), keyed(("a", "again"), ("b", 1))
    assert compare(keyed(), runs, keyed(("a", None), ("b", 1)))[0] == [
        "lost: t(name='a'): value is None, not 'once'"
    ]


def test_the_time_of_the_run_is_one_value_and_another_time_is_not() -> None:
    """A column of dates and times is compared: any time of the run is equal, any other time is itself."""
    now = datetime.now(UTC).replace(tzinfo=None)
    for time_of_run in (now.isoformat(), now, time.time(), int(time.time()), int(time.time() * 1000)):
        runs = keyed(("a", time_of_run)), keyed(("a", time_of_run))
        later = type(time_of_run)(time_of_run) if isinstance(time_of_run, int | float) else time_of_run
        assert compare(keyed(), runs, keyed(("a", later)))[0] == []
        assert compare(keyed(), runs, keyed(("a", "2020-01-01 00:00:00")))[0] != []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (date(2024, 6, 1), date(2024, 6, 2)),
        ("2024-06-01", "2024-06-02"),
        ("08:30:00", "09:30:00"),
        (datetime(2024, 6, 1, 8, tzinfo=UTC), datetime(2024, 6, 1, 9, tzinfo=UTC)),
        (Decimal("10.10"), Decimal("20.20")),
        (b"\x00\xff", b"\x00\xfe"),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 3}'),
        ({"a": 1}, {"a": 2}),
    ],
)
def test_values_of_every_type_are_compared(right: Any, wrong: Any) -> None:
    """A date, a time of day, a decimal, bytes or JSON that is not as in the clean run is a difference."""
    options = {"moments": frozenset({1}) if isinstance(right, date | str) and right != wrong else frozenset()}
    runs = keyed(("a", right), **options), keyed(("a", right), **options)
    assert compare(keyed(**options), runs, keyed(("a", right), **options))[0] == []
    assert len(compare(keyed(**options), runs, keyed(("a", wrong), **options))[0]) == 1


def test_too_much_in_json_or_in_decimals_is_a_wrong_total() -> None:
    """The finding names the member of the object, and a larger number is a wrong total."""
    runs = keyed(("a", '{"n": 1, "m": 2}')), keyed(("a", '{"n": 1, "m": 2}'))
    assert compare(keyed(), runs, keyed(("a", json.dumps({"m": 4, "n": 1}))))[0] == [
        "wrong total: t(name='a'): value.m is 4, not 2"
    ]
    runs = keyed(("a", Decimal(1))), keyed(("a", Decimal(1)))
    assert compare(keyed(), runs, keyed(("a", Decimal(2))))[0][0].startswith("wrong total")


def test_an_expiry_that_moves_with_the_clock_is_the_same() -> None:
    """A time reckoned from the present may be later by what has passed, and not by an hour."""
    expiry = datetime.now(UTC).replace(microsecond=0, tzinfo=None) + timedelta(days=1)
    began = time.time() - 30
    reference = Reference(keyed(), keyed(("a", expiry)), keyed(("a", expiry)), began=began)
    assert reference.differences(keyed(("a", expiry + timedelta(seconds=20)))) == []
    assert reference.differences(keyed(("a", expiry + timedelta(hours=2)))) != []


class Row(NamedTuple):
    """A row as SQLAlchemy returns it: with names."""

    name: str
    value: float


@pytest.mark.parametrize(
    "shape",
    [
        lambda run, total: {"run": run, "sum": total},
        lambda run, total: {"totals": {"run": run, "sum": total}},
        lambda run, total: [("run", run), ("sum", total)],
        lambda run, total: [Row("run", run), Row("sum", total)],
        lambda run, total: [{"name": "run", "value": run}, {"name": "sum", "value": total}],
        lambda run, total: {"totals": [run, total]},
    ],
)
def test_an_outcome_of_the_users_own_has_cells_too(shape: Any) -> None:
    """One noisy value in whatever outcome= returns hides no other value."""
    values = iter([shape(0.25, 6), shape(0.75, 6), shape(0.5, 6), shape(0.5, 7)])
    read = reading(lambda: next(values), dict)
    reference = Reference({}, read(), read(), began=a_moment_ago())
    assert reference.differences(read()) == []
    assert [each.kind for each in reference.differences(read())] == ["wrong total"]
    assert len(reference.ignored) == 1


def test_words_count_and_name_what_they_count() -> None:
    """A number has the name of its column, and a count says how many there should be."""
    table = Table(("id", "entry"), [(n, 1) for n in range(1, 7)], key=(0,), numbered=True)
    more = {"t": Table(table.columns, [*table.rows, (7, 1)], key=(0,), numbered=True)}
    fewer = {"t": Table(table.columns, table.rows[:4], key=(0,), numbered=True)}
    reference = Reference({}, {"t": table}, {"t": table}, began=a_moment_ago())
    assert str(reference.differences(more)[0]) == "t: (entry=1), 7 times instead of 6"
    assert str(reference.differences(fewer)[0]) == "t: (entry=1), 4 times instead of 6"


def test_an_empty_table_that_is_missing_is_a_difference() -> None:
    """A file without lines that is not there is lost."""
    reference = Reference({}, lines(), lines(), began=a_moment_ago())
    assert [str(each) for each in reference.differences({})] == ["file a: missing"]


def test_runs_that_leave_other_rows_are_refused() -> None:
    """A key that is another in each clean run, and no random one, is refused."""
    with pytest.raises(UsageError, match=r"different outcomes \(other rows in t\).*outcome="):
        Reference(keyed(), keyed(("a", 1)), keyed(("b", 1)))
