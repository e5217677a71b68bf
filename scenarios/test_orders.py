"""The orders job in its three forms, under every interruption."""

from __future__ import annotations

import pytest

from harness.interruptions import Interruption
from harness.pytest_plugin import Trial
from harness.scenario import FORMS
from scenarios.expectations import INTERRUPTIONS, expect_control, expect_exactly_once
from scenarios.orders import scenario


@pytest.mark.each
@pytest.mark.interruptions(*INTERRUPTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_orders(trial: Trial, form: str, interruption: Interruption) -> None:
    """Interrupted and resumed, steps and iteration do every item once; the plain loop does some twice."""
    record = trial(scenario, form, interruption)
    if form == "plain":
        expect_control(interruption, record)
    else:
        expect_exactly_once(scenario, interruption, record)
