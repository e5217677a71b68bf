"""The one hypothesis profile of the project, and the number of examples of each property.

No example has a deadline and no property is too slow: a verdict does not depend on the machine. The examples are the
same in each run, so that what fails fails again. ``HARNESS_EXAMPLES=20`` tries twenty times as many, other ones in
each run, and prints the seed that repeats a failure.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

DEFAULT = 100
"""Examples of a property that asks for no number."""


def _factor() -> int:
    text = os.environ.get("HARNESS_EXAMPLES", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"got HARNESS_EXAMPLES={text!r}; use a whole number of 1 or more, such as 20")
    return int(text)


FACTOR = _factor()


def load_profile() -> None:
    """Register the profile and load it; for ``conftest.py``."""
    settings.register_profile(
        "harness",
        deadline=None,
        derandomize=FACTOR == 1,
        print_blob=True,
        max_examples=DEFAULT * FACTOR,
        # A fixture that is set up once for all examples of a property is meant so; it says nothing of the code.
        suppress_health_check=[
            HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture,
        ],
    )  # fmt: skip
    settings.load_profile("harness")


def examples(number: int) -> settings:
    """Return the decorator that tries a property with that many examples, or a multiple in a long run."""
    return settings(max_examples=number * FACTOR)
