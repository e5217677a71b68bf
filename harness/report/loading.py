"""Load a comparison from files of records and benchmarks, or from a saved one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.boundary.decoding import FILE_BYTES, parse, read
from harness.errors import UsageError
from harness.report.benchmarks import benchmarks_from
from harness.report.comparisons import Comparison, comparison, read_run
from harness.report.records import Benchmark, Exploration


def made_from(records: Path, benchmarks: Path | None = None, left_out: list[str] | None = None) -> Comparison:
    """Make the comparison of a file that ``pytest --harness-records`` wrote, or load one that was saved before.

    :param benchmarks: what ``pytest --benchmark-json`` wrote.
    :param left_out: takes the records that cannot be read, one error each; without it the first of them is raised.
    :raises UsageError: if there is no such file, or something else is in it.
    """
    data = _read(records)
    if isinstance(data, dict) and "schema" in data:
        if benchmarks is not None:
            raise UsageError(f"{records} is a comparison and has its benchmarks; leave --benchmarks out")
        return Comparison.from_json(_good_parts(data, left_out, Benchmark))
    if not isinstance(data, dict) or not {"environment", "runs"} <= set(data):
        raise UsageError(
            f"{records} holds no records; allowed is what pytest --harness-records wrote, or a comparison.json"
        )
    measured = None if benchmarks is None else _good_parts(_read(benchmarks), left_out, None)
    data = _good_parts(data, left_out, None)
    return comparison(data["environment"], data["runs"], measured, data.get("explorations", ()))


def _good_parts(data: Any, left_out: list[str] | None, benchmark: type[Benchmark] | None) -> Any:
    """Return the data without the records in it that cannot be read.

    :param benchmark: type of the benchmarks in it; None for those of pytest-benchmark.
    """
    if left_out is None or not isinstance(data, dict):
        return data
    checks: dict[str, Callable[[Any, str], object]] = {
        "runs": read_run,
        "explorations": lambda found, where: read(Exploration, found, where),
        "benchmarks": lambda found, where: (
            read(benchmark, found, where) if benchmark else benchmarks_from({"benchmarks": [found]})
        ),
    }
    return data | {
        name: [
            each for index, each in enumerate(data[name]) if _good(check, each, f"{name}[{index}]", left_out)
        ]
        for name, check in checks.items()
        if isinstance(data.get(name), list)
    }


def _good(check: Callable[[Any, str], object], found: Any, where: str, left_out: list[str]) -> bool:
    try:
        check(found, where)
    except UsageError as error:
        left_out.append(str(error))
        return False
    return True


def _read(path: Path) -> Any:
    try:
        return parse(path.read_bytes(), str(path), limit=FILE_BYTES, error=UsageError)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file; run pytest with --harness-records or --benchmark-json first"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
