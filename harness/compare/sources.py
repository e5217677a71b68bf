"""Where a comparison comes from: files of records and benchmarks, or one that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.compare.comparisons import Comparison, comparison
from harness.decoding import FILE_BYTES, parse
from harness.errors import UsageError


def made_from(records: Path, benchmarks: Path | None = None) -> Comparison:
    """Make the comparison of a file that ``pytest --harness-records`` wrote, or load one that was saved before.

    :param benchmarks: what ``pytest --benchmark-json`` wrote.
    :raises UsageError: if there is no such file, or something else is in it.
    """
    data = _read(records)
    if isinstance(data, dict) and "schema" in data:
        if benchmarks is not None:
            raise UsageError(f"{records} is a comparison and has its benchmarks; leave --benchmarks out")
        return Comparison.load(records)
    if not isinstance(data, dict) or not {"environment", "runs"} <= set(data):
        raise UsageError(
            f"{records} holds no records; allowed is what pytest --harness-records wrote, or a comparison.json"
        )
    measured = None if benchmarks is None else _read(benchmarks)
    return comparison(data["environment"], data["runs"], measured, data.get("explorations", ()))


def _read(path: Path) -> Any:
    try:
        return parse(path.read_bytes(), str(path), limit=FILE_BYTES, error=UsageError)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file; run pytest with --harness-records or --benchmark-json first"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
