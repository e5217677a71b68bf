"""The public face of the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness import errors, events, stops


def test_exactly_the_public_names_are_exported() -> None:
    """``__all__`` and ``dir()`` name the same things, each of which exists and belongs to this package."""
    assert dir(harness) == sorted(harness.__all__)
    assert len(set(harness.__all__)) == len(harness.__all__)
    assert all(getattr(harness, name).__module__.startswith("harness.") for name in harness.__all__)


def test_all_kinds_of_events_are_exported() -> None:
    """``events.__all__`` names every event of the module."""
    kinds = {
        name
        for name, value in vars(events).items()
        if isinstance(value, type) and issubclass(value, events.Event)
    }
    assert kinds <= set(events.__all__)
    assert all(hasattr(events, name) for name in events.__all__)


def test_names_of_release_0_1_are_still_found() -> None:
    """Code that imports errors and stop sources from the root goes on working; other names do not exist."""
    assert harness.UsageError is errors.UsageError
    assert harness.Flag is stops.Flag
    with pytest.raises(ImportError, match="nothing_like_it"):
        exec("from harness import nothing_like_it")  # noqa: S102


def test_importing_the_package_loads_the_standard_library_alone() -> None:
    """``import harness`` loads neither SQLAlchemy nor RQ nor Redis, so that it costs what the patterns need."""
    script = "import sys, harness; print(sorted({'sqlalchemy', 'rq', 'redis', 'asyncio'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "harness", "harness.queues.rq", "harness.stores.rq_meta", "harness.stores.redis", "harness.stores.sql",
        "harness.sources.keyset",
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
    shown = [
        str(error())
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.HarnessError)
    ]
    assert len(shown) > 10
    assert all(len(message) > 20 for message in shown)


@pytest.mark.parametrize("folder", ["harness", "scenarios"])
def test_codes_of_the_parity_table_stay_out_of_what_help_shows(folder: str) -> None:
    """Codes such as C17 mean something in docs/parity.md and in tests; in a docstring they are noise."""
    root = Path(harness.__file__).parent.parent / folder
    code = re.compile(r"\b[CIS]\d{1,2}\b")
    shown = [
        f"{path.relative_to(root)}: {found[0]}"
        for path in root.rglob("*.py")
        if not path.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        and (found := code.search(node.value.value))
    ]  # fmt: skip
    assert not shown
