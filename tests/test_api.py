"""The public face of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import harness
from harness import events


def test_exactly_the_public_names_are_exported() -> None:
    """__all__ equals what the package imports by name."""
    public = {
        name for name, value in vars(harness).items() if not name.startswith("_") and not _is_module(value)
    }
    assert sorted(harness.__all__) == sorted(public)


def test_all_kinds_of_events_are_exported() -> None:
    """``events.__all__`` names every event of the module."""
    kinds = {
        name
        for name, value in vars(events).items()
        if isinstance(value, type) and issubclass(value, events.Event)
    }
    assert kinds <= set(events.__all__)
    assert all(hasattr(events, name) for name in events.__all__)


def _is_module(value: object) -> bool:
    return type(value).__name__ == "module"


@pytest.mark.parametrize(
    "module",
    [
        "harness", "harness.queues.rq", "harness.stores.rq_meta", "harness.stores.redis", "harness.stores.sql",
        "harness.keyset",
    ],
)  # fmt: skip
def test_production_needs_nothing_of_the_test_half(module: str) -> None:
    """A worker imports it without pytest, fakeredis, rich, click's users or aiosmtpd being loaded."""
    script = (
        f"import sys, {module}; "
        "print(sorted({'pytest', 'fakeredis', 'rich', 'aiosmtpd', 'pytest_benchmark', 'xdist'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_every_error_has_a_default_message() -> None:
    """An error raised without a message still says what it is."""
    errors = [getattr(harness, name) for name in harness.__all__ if name[0].isupper()]
    shown = [
        str(error())
        for error in errors
        if isinstance(error, type) and issubclass(error, harness.HarnessError)
    ]
    assert len(shown) > 10
    assert all(len(message) > 20 for message in shown)
