"""Templates of the page and its drawings. Jinja2 escapes every value; control characters are replaced here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from harness.boundary.texts import printable


@dataclass(frozen=True)
class Drawing:
    """Picture with a text alternative.

    :ivar kind: CSS class. :ivar height: pixels; the width is that of its container. :ivar told: text of
        everything that the picture shows.
    """

    kind: str
    height: int
    title: str
    told: str
    content: Markup

    def __html__(self) -> str:
        return part("picture", self)

    def __str__(self) -> str:
        return self.__html__()


def drawing(kind: str, height: int, title: str, told: str, /, **values: Any) -> Drawing:
    """Return the drawing of *values* by the macro *kind*."""
    return Drawing(kind, height, title, told, part(kind, values))


def render(name: str, /, **values: Any) -> str:
    """Return a template filled with values."""
    return _environment().get_template(name).render(values)


def part(macro: str, value: object) -> Markup:
    """Return the output of a drawing macro for a value."""
    made: Markup = getattr(_drawings(), macro)(value)
    return made


def source(name: str) -> Markup:
    """Return a file of the templates unchanged: a style sheet or a script of this package."""
    environment = _environment()
    assert environment.loader is not None  # noqa: S101 - set below
    return Markup(environment.loader.get_source(environment, name)[0])  # noqa: S704 - a file of this package


@cache
def _drawings() -> Any:
    return _environment().get_template("drawings.html").module


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    """Replace control characters in foreign texts; markup of templates was already checked here."""
    return printable(value) if type(value) is str else value
