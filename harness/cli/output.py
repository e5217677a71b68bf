"""Text output of the commands: it removes control characters of stored texts."""

from __future__ import annotations

import click

from harness.boundary.texts import printable


def echo(text: object, *, err: bool = False) -> None:
    """Print a text and keep its line breaks."""
    click.echo(printable(str(text), lines=True), err=err)
