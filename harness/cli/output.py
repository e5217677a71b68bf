"""Output of the commands for people: no control character in a stored text reaches the terminal."""

from __future__ import annotations

import click

from harness.boundary.texts import printable


def echo(text: object, *, err: bool = False) -> None:
    """Print a text; its line breaks stay."""
    click.echo(printable(str(text), lines=True), err=err)
