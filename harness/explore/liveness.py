"""Liveness of local variables: names that a function may still read after a position in its bytecode.

For example, a loop iterates over a list of rows in a local variable, but nothing reads its name again. Two
processes that differ only in such a variable have the same future.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType

_ENDS = {"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT"}
_ALWAYS = {
    "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "JUMP", "JUMP_NO_INTERRUPT",
}  # fmt: skip
_JUMPS = {*dis.hasjrel, *dis.hasjabs}

Names = frozenset[str]


@lru_cache(maxsize=10_000)
def live(code: CodeType, last: int) -> Names:
    """Return the names that may be read after an instruction.

    Names that closures share, and names that an exception handler reads, always count.

    :param last: offset of the current instruction, such as ``frame.f_lasti``.
    """
    offsets, after, always = _analysed(code)
    index = max((i for i, offset in enumerate(offsets) if offset <= last), default=None)
    return always if index is None else after[index] | always


@lru_cache(maxsize=1_000)
def _analysed(code: CodeType) -> tuple[list[int], list[Names], Names]:
    """Return the offsets of all instructions, the names live after each, and the names that are always live."""
    found = list(dis.get_instructions(code))
    at = {each.offset: index for index, each in enumerate(found)}
    uses, kills = zip(*(_names(each) for each in found), strict=True)
    follows = [_followers(each, index, at, len(found)) for index, each in enumerate(found)]
    always = frozenset(code.co_cellvars) | frozenset(code.co_freevars)
    reached = _reached(follows)
    for index, names in enumerate(uses):
        if index not in reached:  # only an exception leads there
            always |= names
    before: list[Names] = [frozenset()] * len(found)
    after: list[Names] = [frozenset()] * len(found)
    settled = False
    while not settled:
        settled = True
        for index in reversed(range(len(found))):
            out = frozenset().union(*(before[each] for each in follows[index]))
            into = uses[index] | (out - kills[index])
            if (into, out) != (before[index], after[index]):
                before[index], after[index], settled = into, out, False
    return [each.offset for each in found], after, always


def _names(each: dis.Instruction) -> tuple[Names, Names]:
    """Return the names that an instruction reads, and those that it replaces without reading."""
    if "_FAST" not in each.opname:
        return frozenset(), frozenset()
    given = each.argval if isinstance(each.argval, tuple) else (each.argval,)
    names = frozenset(name for name in given if isinstance(name, str))
    return (frozenset(), names) if each.opname == "STORE_FAST" else (names, frozenset())


def _followers(each: dis.Instruction, index: int, at: dict[int, int], number: int) -> list[int]:
    found = [at[each.argval]] if each.opcode in _JUMPS and each.argval in at else []
    if each.opname not in _ENDS and each.opname not in _ALWAYS and index + 1 < number:
        found.append(index + 1)
    return found


def _reached(follows: list[list[int]]) -> set[int]:
    reached, waiting = set(), [0]
    while waiting:
        index = waiting.pop()
        if index not in reached:
            reached.add(index)
            waiting += follows[index]
    return reached
