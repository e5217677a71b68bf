"""The one hypothesis profile of the project, and the number of examples of each property.

No example has a deadline and no property is too slow: a verdict does not depend on the machine. The examples are the
same in each run, so that what fails fails again. A run without ``--full`` tries a sixth of them.
``HARNESS_EXAMPLES=20`` tries twenty times as many as ``--full``, other ones in each run, and prints the seed that
repeats a failure.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

DEFAULT = 100
"""Examples of a property that asks for no number."""
SHARE = 6
"""Divisor of the number of examples in a run without ``--full``."""


def _factor() -> int:
    text = os.environ.get("HARNESS_EXAMPLES", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"got HARNESS_EXAMPLES={text!r}; use a whole number of 1 or more, such as 20")
    return int(text)


FACTOR = _factor()
_full = False


def load_profile(*, full: bool = False) -> None:
    """Register the profile and load it; for ``conftest.py``, before it collects tests.

    :param full: try all examples.
    """
    global _full  # noqa: PLW0603 - the option is known after this module is imported, and before properties are
    _full = full
    settings.register_profile(
        "harness",
        deadline=None,
        derandomize=FACTOR == 1,
        print_blob=True,
        max_examples=_number(DEFAULT),
        # A fixture that is set up once for all examples of a property is meant so; it says nothing of the code.
        suppress_health_check=[
            HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture,
        ],
    )  # fmt: skip
    settings.load_profile("harness")


def examples(number: int) -> settings:
    """Return the decorator that tries a property with that many examples, a sixth, or a multiple in a long run."""
    return settings(max_examples=_number(number))


def said() -> str | None:
    """Return the line that says what is left out, if anything is."""
    if _full or FACTOR > 1:
        return None
    return f"properties: one in {SHARE} examples tried; --full tries all"


def _number(number: int) -> int:
    return number * FACTOR if _full or FACTOR > 1 else -(-number // SHARE)
