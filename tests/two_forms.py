"""A scenario of two forms: most people choose one pattern, and compare it with their loop."""

from __future__ import annotations

from dataclasses import replace

from scenarios import orders

scenario = replace(
    orders.scenario, forms={form: orders.scenario.forms[form] for form in ("iteration", "plain")}
)
