""":class:`Comparison`: built from records, summarized, saved and loaded."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from harness.boundary.decoding import FILE_BYTES, malformed, parse_json, read
from harness.boundary.files import write_whole
from harness.errors import UsageError
from harness.report.benchmarks import benchmarks_from
from harness.report.headline import sentences
from harness.report.records import PATTERNS, Benchmark, Environment, Exploration, Pattern, Run
from harness.report.summaries import Totals, add_up

SCHEMA = 1


@dataclass(frozen=True)
class Group:
    """Runs that can be compared: same work, same interruption, same services."""

    scenario: str
    interruption: str
    queue: str
    broker: str
    database: str
    runs: tuple[Run, ...]

    def of(self, pattern: Pattern) -> tuple[Run, ...]:
        """Pick the runs of one pattern: usually one, more if several durabilities were tried."""
        return tuple(run for run in self.runs if run.pattern == pattern)


@dataclass(frozen=True)
class Comparison:
    """Data of a report, in a fixed order: scenario, pattern, interruption."""

    environment: Environment
    runs: tuple[Run, ...]
    benchmarks: tuple[Benchmark, ...]
    explorations: tuple[Exploration, ...] = ()

    @classmethod
    def from_json(cls, found: object) -> Comparison:
        """Read the output of :meth:`to_json`.

        :raises UsageError: naming the field, its value and the allowed values.
        """
        if isinstance(found, Mapping):
            _check_schema(found.get("schema"))
        unsorted: Comparison = read(cls, found, "")
        for index, run in enumerate(unsorted.runs):
            _check_verdict(run, f"runs[{index}]")
        return _sorted(unsorted.environment, unsorted.runs, unsorted.benchmarks, unsorted.explorations)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the comparison to a file, one run or benchmark per line; the file is never half written."""
        write_whole(Path(path), _in_lines({"schema": SCHEMA, **_fields(self)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Comparison:
        """Read the file that :meth:`save` wrote.

        :raises UsageError: if it does not exist, or has other content.
        """
        try:
            text = Path(path).read_bytes()
        except FileNotFoundError:
            raise UsageError(f"{path}: no such file; make a comparison first") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        try:
            return cls.from_json(parse_json(text, "the file", limit=FILE_BYTES, error=UsageError))
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns that occur among the runs, plain first."""
        found = {run.pattern for run in self.runs}
        return tuple(pattern for pattern in PATTERNS if pattern in found)

    @property
    def on_work(self) -> tuple[Benchmark, ...]:
        """Benchmarks of jobs with real work."""
        return tuple(each for each in self.benchmarks if each.kind == "work")

    @property
    def of_patterns(self) -> tuple[Benchmark, ...]:
        """Benchmarks of the patterns themselves."""
        return tuple(each for each in self.benchmarks if each.kind == "pattern")

    @cached_property
    def scenarios(self) -> dict[str, Comparison]:
        """One comparison for each scenario, in order."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.scenario, []).append(run)
        return {
            name: dataclasses.replace(self, runs=tuple(runs), benchmarks=(), explorations=())
            for name, runs in found.items()
        }

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Groups of comparable runs."""
        grouped: dict[tuple[str, str, str, str, str], list[Run]] = {}
        for run in self.runs:
            key = run.scenario, run.interruption, run.queue, run.broker, run.database
            grouped.setdefault(key, []).append(run)
        in_order = sorted(grouped, key=lambda key: (key[0], _natural(key[1]), key[2:]))
        return tuple(Group(*key, tuple(grouped[key])) for key in in_order)

    @property
    def finding(self) -> str:
        """Finding of all sections, in sentences built only from their figures."""
        return " ".join(sentences(self))

    def totals(self, pattern: Pattern) -> Totals:
        """Add up all runs of one pattern."""
        return add_up(pattern, [run for run in self.runs if run.pattern == pattern])


def comparison(
    environment: Mapping[str, object],
    runs: Sequence[Mapping[str, object]],
    pytest_benchmark_json: Mapping[str, Any] | None = None,
    explorations: Sequence[Mapping[str, object]] = (),
) -> Comparison:
    """Combine the records of trials and the measurements of pytest-benchmark.

    :param environment: the fields of :class:`Environment`. :param runs: one record per trial, with the fields
        of :class:`Run`. :param pytest_benchmark_json: data of ``--benchmark-json``. A benchmark counts if its
        ``extra_info`` names a ``scenario``; then ``pattern`` and ``items`` must be there too, and
        ``durability`` may be. :param explorations: with the fields of :class:`Exploration`. :raises
        UsageError: naming the field, what was found and what is allowed.
    """
    benchmarks = benchmarks_from(pytest_benchmark_json) if pytest_benchmark_json is not None else []
    return Comparison.from_json(
        {
            "schema": SCHEMA,
            "environment": environment,
            "runs": runs,
            "benchmarks": [dataclasses.asdict(benchmark) for benchmark in benchmarks],
            "explorations": explorations,
        }
    )


def read_run(found: object, where: str) -> Run:
    """Return the run in a record.

    :raises UsageError: naming the field, its value and the allowed values.
    """
    run: Run = read(Run, found, where)
    _check_verdict(run, where)
    return run


def made_from(records: Path, benchmarks: Path | None = None, left_out: list[str] | None = None) -> Comparison:
    """Return the comparison in a file: records of ``pytest --harness-records``, or a saved comparison.

    :param benchmarks: file of ``pytest --benchmark-json``.
    :param left_out: list to which one error for each unreadable record is appended; without it the first is raised.
    :raises UsageError: if the file does not exist, or has other content.
    """
    data = _read(records)
    if isinstance(data, dict) and "schema" in data:
        if benchmarks is not None:
            raise UsageError(f"{records} is a comparison and has its benchmarks; leave --benchmarks out")
        if left_out is None:
            return Comparison.from_json(data)
        _check_schema(data.get("schema"))
        measured = _good(data.get("benchmarks"), "benchmarks", partial(read, Benchmark), left_out)
    else:
        if not isinstance(data, dict) or not {"environment", "runs"} <= set(data):
            raise UsageError(
                f"{records} holds no records; use a file of pytest --harness-records, or a comparison.json"
            )
        measured = [] if benchmarks is None else _measured(_read(benchmarks), left_out)
        data.setdefault("explorations", [])
    if "environment" not in data:
        raise UsageError("environment: this field is required, and is missing")
    environment: Environment = read(Environment, data["environment"], "environment")
    return _sorted(
        environment,
        _good(data.get("runs"), "runs", read_run, left_out),
        measured,
        _good(data.get("explorations", []), "explorations", partial(read, Exploration), left_out),
    )


def _good(
    found: Any, name: str, read_one: Callable[[Any, str], Any], left_out: list[str] | None
) -> list[Any]:
    """Return the readable members of a list."""
    if not isinstance(found, list):
        malformed(name, found, "a list")
    good = []
    for index, each in enumerate(found):
        try:
            good.append(read_one(each, f"{name}[{index}]"))
        except UsageError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
    return good


def _measured(data: Any, left_out: list[str] | None) -> list[Benchmark]:
    """Return the benchmarks in the data of pytest-benchmark; ratios need all of them, so they are checked first."""
    if left_out is not None and isinstance(data, dict) and isinstance(data.get("benchmarks"), list):
        kept: list[Any] = []

        def checked(found: Any, where: str) -> None:
            try:
                benchmarks_from({"benchmarks": [found]})
            except UsageError as error:
                raise UsageError(str(error).replace("benchmarks[0]", where, 1)) from None
            kept.append(found)

        _good(data["benchmarks"], "benchmarks", checked, left_out)
        data = data | {"benchmarks": kept}
    return benchmarks_from(data)


def _read(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes(), str(path), limit=FILE_BYTES, error=UsageError)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file; run pytest with --harness-records or --benchmark-json first"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _sorted(
    environment: Environment,
    runs: Iterable[Run],
    benchmarks: Iterable[Benchmark],
    explorations: Iterable[Exploration],
) -> Comparison:
    return Comparison(
        environment,
        tuple(sorted(runs, key=_run_order)),
        tuple(sorted(benchmarks, key=_form_order)),
        tuple(sorted(explorations, key=_form_order)),
    )


def _check_schema(found: object) -> None:
    if type(found) is not int or found < SCHEMA:
        malformed("schema", found, str(SCHEMA))
    if found > SCHEMA:
        malformed("schema", found, f"{SCHEMA}; a newer version wrote this: upgrade job-continuation-harness")


def _check_verdict(run: Run, where: str) -> None:
    unharmed = run.completed and not run.lost and not run.duplicated and all(run.checks.values())
    needed = {
        "exactly once": (unharmed, "runs that completed with nothing lost or duplicated and all checks held"),
        "lost": (run.lost > 0, "runs that lost an item"),
        "duplicated": (run.duplicated > 0, "runs with a duplicated item"),
        "never finished": (not run.completed, "runs that did not complete"),
    }
    holds, allowed = needed.get(run.verdict, (True, ""))
    if not holds:
        malformed(f"{where}.verdict", run.verdict, f"this verdict only for {allowed}")


def _rank(pattern: Pattern) -> int:
    return PATTERNS.index(pattern)


def _form_order(found: Benchmark | Exploration) -> tuple[object, ...]:
    return found.scenario, _rank(found.pattern), _natural(found.durability or "none")


def _run_order(run: Run) -> tuple[object, ...]:
    settings = (run.queue, run.broker, run.database, _natural(run.durability))
    return (run.scenario, _rank(run.pattern), _natural(run.interruption), *settings)


@lru_cache(maxsize=10_000)
def _natural(name: str) -> tuple[bool, list[str | float]]:
    """Numbers by value, "none" before everything else."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return name != "none", [float(part) if odd % 2 else part for odd, part in enumerate(parts)]


def _fields(found: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, without copying their values."""
    return {each.name: getattr(found, each.name) for each in dataclasses.fields(found)}


def _in_lines(found: Mapping[str, Any]) -> str:
    def member(value: object) -> str:
        if not isinstance(value, list | tuple):
            return json.dumps(value, allow_nan=False, default=_fields)
        return (
            "["
            + ",".join(f"\n  {json.dumps(each, allow_nan=False, default=_fields)}" for each in value)
            + "]"
        )

    return "{" + ",\n ".join(f'"{name}": {member(value)}' for name, value in found.items()) + "}\n"
