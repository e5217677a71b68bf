"""The plugin's options, and interruptions as parameters of tests."""

from __future__ import annotations

import pytest

from harness.durability import parse_durability
from harness.errors import UsageError
from harness.interruptions import parse_interruption


def check(config: pytest.Config) -> None:
    """End the session with exit code 2 and one line if an option is invalid."""
    option = config.getoption
    try:
        sample(config, None)
        if option("--harness-trial"):
            from harness.explore.planned import parse_trial  # noqa: PLC0415 - loads the explorer

            parse_trial(option("--harness-trial"))
        for name in option("--harness-interrupt") or ():
            parse_interruption(name)
        if option("--harness-durability"):
            parse_durability(option("--harness-durability"))
        if option("--harness-processes") is not None and option("--harness-processes") < 1:
            raise UsageError(
                f"--harness-processes: got {option('--harness-processes')}; use a number of 1 or more"
            )
        if not option("--harness-pace") >= 0:
            raise UsageError(f"--harness-pace: got {option('--harness-pace'):g}; use seconds of 0 or more")
    except UsageError as error:
        pytest.exit(str(error), returncode=2)


def sample(config: pytest.Config, default: int | None) -> int | None:
    """Return the number of trials of each kind to explore; None for all."""
    text = config.getoption("--harness-sample")
    if text is None:
        return default
    if text != "all" and not (text.isdecimal() and int(text) > 0):
        raise UsageError(f"--harness-sample: got {text!r}; use a number of 1 or more, or all")
    return None if text == "all" else int(text)


def parametrize_interruptions(metafunc: pytest.Metafunc) -> None:
    """Run the test once for each interruption, with the interruption's name as the id."""
    marker = metafunc.definition.get_closest_marker("interruptions")
    names = metafunc.config.getoption("--harness-interrupt") or (marker.args if marker else ("none",))
    try:
        metafunc.parametrize(
            "interruption", [pytest.param(parse_interruption(name), id=name) for name in names], indirect=True
        )
    except UsageError as error:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: {error}") from None
