"""Files that only a resumed execution touches: their changes are found, and no other file is accused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.explore import explore
from harness.explore.files import FileResource
from tests.explore.test_planted import Planted
from tests.planted import recoveries, shop

PLANTED = [
    Planted(recoveries.appends, recoveries.writes_the_same, "duplicated"),
    Planted(recoveries.empties, recoveries.touches, "lost"),
    Planted(recoveries.removes, recoveries.writes_and_removes, "lost"),
    Planted(recoveries.leaves_a_file, recoveries.touches, "duplicated"),
]
FILE = {recoveries.leaves_a_file: "resumed.txt"}
"""Name of the file that a finding must name, if it is not that of the settings."""
OPTIONS: dict[str, Any] = {"actions": ["crash"], "sample": 6}


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    recoveries.settings().write_text("colour\n")
    yield
    shop.close_shop()


@pytest.mark.sample(2)
@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.wrong.__name__)
def test_a_file_that_only_a_recovery_touches_is_compared(planted: Planted, shortcuts: bool) -> None:
    """It must be left as it was before the job: what is appended, emptied, removed or left is a finding."""
    found = explore(planted.wrong, shortcuts=shortcuts, **OPTIONS)
    assert found.verdict == planted.verdict, found.text()
    assert all(FILE.get(planted.wrong, "settings.txt") in each.what for each in found.findings), found.text(
        50
    )
    right = explore(planted.right, shortcuts=shortcuts, **OPTIONS)
    assert right.verdict == "exactly once", right.text()


def test_a_change_that_leaves_size_and_times_as_they_were_is_seen(tmp_path: Path) -> None:
    """Neither a clock with long ticks nor a copied time of modification hides a change."""
    path = tmp_path / "number.txt"
    path.write_text("0")
    place, before = FileResource(str(path)), path.stat()
    for number in range(1, 200):
        path.write_text(str(number % 10))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert place.changed()
        assert not place.changed()


def test_the_same_bytes_are_no_change(tmp_path: Path) -> None:
    """A file that is written again, replaced by its copy or touched is not another state."""
    path = tmp_path / "number.txt"
    path.write_text("0")
    place = FileResource(str(path))
    path.write_text("0")
    assert not place.changed()
    path.with_suffix(".part").write_text("0")
    path.with_suffix(".part").replace(path)
    assert not place.changed()
    path.touch()
    assert not place.changed()
