"""Jobs that touch a file only if an earlier execution was interrupted: no clean run opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.planted import shop


def settings() -> Path:
    """Return a file that is there before the job, which no clean run opens."""
    return shop.report().with_name("settings.txt")


def _pay_all(if_resumed: Callable[[], object]) -> None:
    mark = shop.report().with_name("running")
    if mark.exists():
        if_resumed()
    mark.touch()
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
    mark.unlink(missing_ok=True)


def _append() -> None:
    with settings().open("a") as file:
        file.write("resumed\n")


def appends() -> None:
    """Appends a line."""
    _pay_all(_append)


def writes_the_same() -> None:
    """Writes the bytes that are there."""
    _pay_all(lambda: settings().write_text("colour\n"))


def empties() -> None:
    """Empties the file."""
    _pay_all(lambda: settings().write_text(""))


def touches() -> None:
    """Changes its times."""
    _pay_all(lambda: settings().touch())


def removes() -> None:
    """Removes the file."""
    _pay_all(lambda: settings().unlink(missing_ok=True))


def _write_and_remove() -> None:
    part = settings().with_suffix(".part")
    part.write_text("colour\n")
    part.unlink(missing_ok=True)


def writes_and_removes() -> None:
    """Writes another file, and removes it again."""
    _pay_all(_write_and_remove)


def leaves_a_file() -> None:
    """Leaves a file that is not there after a clean run."""
    _pay_all(lambda: settings().with_name("resumed.txt").write_text("resumed\n"))
