"""The report in a real browser: it fits into windows of every width and says nothing on the console."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import render
from tests.comparisons import sample

WIDTHS = (360, 800, 1600)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
    "--window-size=1800,1200",
)  # fmt: skip
# A headless window has a least width of its own; a frame has the width that it is given.
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, body = getComputedStyle(document.body);
  document.querySelectorAll("details").forEach(each => each.open = true);
  const boxes = [...document.querySelectorAll(".scroll")].filter(each => each.scrollWidth > each.clientWidth);
  parent.document.body.insertAdjacentHTML("beforeend",
    `<p>width=${innerWidth} page=${root.scrollWidth} scrolling=${boxes.length} ground=${body.backgroundColor}</p>`);
});
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    """Find the browser; without one there is nothing to see, unless it must be there."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        reason = "no chromium found; install it to see the report as its readers do"
        if os.environ.get("HARNESS_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def shown(chromium: str, folder: Path, scheme: int) -> tuple[list[dict[str, str]], str]:
    """Show the report in frames of all widths and return what was measured there, and the browser's log.

    :param scheme: 0 for dark, 1 for light.
    """
    page = render.html(sample()).replace("</body>", f"{PROBE}</body>")
    (folder / "report.html").write_text(page, encoding="utf-8")
    frames = "".join(
        f'<iframe src="report.html" style="border:0" width="{width}"></iframe>' for width in WIDTHS
    )
    (folder / "frames.html").write_text(f"<!doctype html><title>frames</title>{frames}", encoding="utf-8")
    # Pages on disk are strangers to each other unless the browser is told otherwise.
    command = [
        chromium, *FLAGS, "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", (folder / "frames.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.findall(r"<p>(width=[^<]*)</p>", done.stdout)
    return [dict(re.findall(r"(\w+)=(rgb\([^)]*\)|\d+)", each)) for each in found], done.stderr


@pytest.mark.parametrize(
    ("scheme", "ground"), [(0, "rgb(22, 24, 27)"), (1, "rgb(252, 251, 249)")], ids=["dark", "light"]
)
def test_fits_into_every_window(chromium: str, tmp_path: Path, scheme: int, ground: str) -> None:
    """At 360, 800 and 1600 pixels the page is no wider than its window, in the colours asked for, without an error."""
    measured, log = shown(chromium, tmp_path, scheme)
    assert sorted(int(each["width"]) for each in measured) == list(WIDTHS)
    assert [each for each in measured if int(each["page"]) > int(each["width"])] == []
    assert {each["ground"] for each in measured} == {ground}
    narrow = min(measured, key=lambda each: int(each["width"]))
    assert int(narrow["scrolling"]) >= 3, (
        "totals, cost and runs are wider than a telephone and must scroll in their boxes"
    )
    assert "CONSOLE" not in log
