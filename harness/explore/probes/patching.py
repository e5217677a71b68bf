"""Replace methods while trials run, and restore them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

Wrap = Callable[[Any], Any]


@contextmanager
def patched(*patches: tuple[Any, str, Wrap]) -> Iterator[None]:
    """Replace each attribute by the result of ``wrap(original)``, until the block ends."""
    with ExitStack() as stack:
        for owner, name, wrap in patches:
            inherited = name not in vars(owner)
            original = getattr(owner, name) if inherited else vars(owner)[name]
            setattr(owner, name, wrap(original))
            undo = (delattr, owner, name) if inherited else (setattr, owner, name, original)
            stack.callback(*undo)
        yield


def with_overrides(owner: type, name: str, wrap: Wrap) -> list[tuple[Any, str, Wrap]]:
    """Return the patches for a method of a class and for those of its subclasses that have their own."""
    found = [(owner, name, wrap)] if name in vars(owner) else []
    subclass: type
    for subclass in owner.__subclasses__():
        found += with_overrides(subclass, name, wrap)
    return found
