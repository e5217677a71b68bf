"""Times inside a text, in the forms that logs, mails and mailboxes use."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
"""Units per second of numbers that count from 1970."""

_FORMS: dict[str, str] = {
    "iso": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?",
    "mail": r"\b[A-Z][a-z]{2}, \d\d? [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d (?:[+-]\d{4}|GMT|UTC)",
    "c": r"\b[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\b",
    "web": r"\b\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}",
    "clock": r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b",
    "entry": r"\b1[5-9]\d{11}-\d+\b",
    "count": r"\b1[5-9]\d{8}(?:\.\d+|\d{3}|\d{6}|\d{9})?\b",
}
"""Forms of a time: ISO 8601, of mails, of C's ``asctime``, of web servers' logs, time of day, id of an entry in a Redis
stream, seconds since 1970.
"""
TIME = re.compile("|".join(f"(?P<{name}>{form})" for name, form in _FORMS.items()))
"""A time inside a text."""


def seconds(value: Any) -> list[float]:
    """Return a date or time as seconds since 1970, in UTC and in local time; an empty list for anything else."""
    if isinstance(value, str):
        try:
            value = time_of_day.fromisoformat(value) if value[2:3] == ":" else datetime.fromisoformat(value)
        except ValueError:
            return []
    if isinstance(value, time_of_day):
        today = {datetime.now(UTC).date(), datetime.now(UTC).astimezone().date()}
        return [each for day in today for each in seconds(datetime.combine(day, value))]
    if isinstance(value, datetime):
        zones = [value.tzinfo] if value.tzinfo else [UTC, None]
        return [(value.replace(tzinfo=zone) if zone else value.astimezone()).timestamp() for zone in zones]
    if isinstance(value, date):
        return seconds(datetime(value.year, value.month, value.day, tzinfo=UTC))
    return []


def split(text: str) -> tuple[list[str], list[re.Match[str]]]:
    """Return the parts of a text between its times, and the times."""
    found = list(TIME.finditer(text))
    ends = [0, *(match.end() for match in found)]
    starts = [*(match.start() for match in found), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)], found


def meant(found: re.Match[str]) -> list[float]:
    """Return the possible meanings of a time in a text, in seconds since 1970."""
    form = found.lastgroup or ""
    # A time of day has no date.
    return _decimal(found[0]) if form == "clock" else list(_meant(form, found[0]))


@lru_cache(maxsize=4096)
def _meant(form: str, text: str) -> tuple[float, ...]:
    with suppress(ValueError, TypeError, OverflowError):
        return tuple(_READERS[form](text))
    return ()


def _count(text: str) -> list[float]:
    """Return a number as seconds; its digits say whether it counts seconds, or smaller units."""
    whole = len(text.partition(".")[0])
    return [float(text) / 10 ** (whole - 10)]


def _decimal(text: str) -> list[float]:
    """Read a time with a point or a comma before the fraction of its seconds."""
    return seconds(text.replace(",", "."))


_READERS: dict[str, Callable[[str], list[float]]] = {
    "iso": _decimal,
    "mail": lambda text: seconds(parsedate_to_datetime(text)),
    "c": lambda text: seconds(datetime.strptime(text, "%a %b %d %H:%M:%S %Y")),  # noqa: DTZ007 - it names no zone
    "web": lambda text: seconds(datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z")),
    "entry": lambda text: _count(text.partition("-")[0]),
    "count": _count,
}
