"""The memory of a process: plain variables of the job's modules, which trials restore."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from harness.explore.memory import Memory

PLAIN: dict[str, Any] = {
    "number": 1, "text": "a", "nothing": None, "members": [1, [2]], "names": {"a": (1, [2])}, "group": {1, (2, 3)},
}  # fmt: skip


@pytest.fixture
def module() -> Iterator[Any]:
    """Yield a module with plain variables, and with a class that has one."""
    made = ModuleType("package_of_a_job")
    owner = type("Job", (), {"__module__": made.__name__, "seen": []})
    vars(made).update(copy.deepcopy(PLAIN), Job=owner)
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def plain(module: Any) -> dict[str, Any]:
    """Return the values of the variables."""
    return {name: getattr(module, name) for name in PLAIN} | {"seen": module.Job.seen}


def spoil(module: Any) -> None:
    """Change every variable: some in place, some by another value."""
    module.number, module.text, module.nothing = True, None, {"made": [1]}
    module.members[1].append(3)
    module.names["a"][1].clear()
    module.group = {4}
    module.Job.seen.append(1)


def test_changed_variables_are_restored_in_place(module: Any) -> None:
    """Each variable has its first value again, in the same container, however it was changed."""
    containers = {
        name: value for name, value in plain(module).items() if isinstance(value, list | dict | set)
    }
    memory = Memory([module.__name__], [])
    assert memory.changed() == []
    spoil(module)
    assert len(memory.changed()) == len(PLAIN) + 1, "True equals 1, and is another value"
    memory.restore()
    assert plain(module) == {**PLAIN, "seen": []}
    assert module.number is not True
    assert all(plain(module)[name] is value for name, value in containers.items())
    assert memory.changed() == []


def test_the_memory_of_a_process_that_stands_still_is_put_aside_and_restored(module: Any) -> None:
    """A second process begins with the first values, and leaves nothing in the memory of the first one."""
    memory = Memory([module.__name__], [])
    spoil(module)
    spoilt = repr(plain(module))
    aside = memory.now()
    memory.restore()
    module.text = "second"
    module.members.append("second")
    memory.restore(aside)
    assert repr(plain(module)) == spoilt


def test_a_container_with_itself_or_with_an_object_inside_is_no_plain_data(module: Any) -> None:
    """Such a variable is left alone, and a plain one that has come to hold an object gets its first members back."""
    module.members.append(module.members)
    module.names["object"] = object()
    memory = Memory([module.__name__], [])
    module.members.append(1)
    module.group.add(object)
    aside = memory.now()
    memory.restore()
    assert module.group == PLAIN["group"]
    assert len(module.members) == 4
    memory.restore(aside)
    assert object in module.group


def test_witnesses_are_external_state(module: Any) -> None:
    """A crash does not change what stands for external state."""
    memory = Memory([module.__name__], [module.members])
    module.members.append(4)
    memory.restore()
    assert module.members == [1, [2], 4]
