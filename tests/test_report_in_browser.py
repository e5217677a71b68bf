"""The report in a real browser: whole, legible and within reach of the keyboard, in windows of every width."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from harness import render
from tests.comparisons import showpiece

WIDTHS = (360, 800, 1600)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
    "--window-size=1800,1200",
)  # fmt: skip
# A headless window has a least width of its own; a frame has the width that it is given.
PROBE = """<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(each => each.open = true);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const box = each => each.getBoundingClientRect();
  const told = each => each.textContent.trim().slice(0, 60);
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(part => part / 255)
      .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = each => {
    const colour = getComputedStyle(each).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? ground(each.parentElement) : colour;
  };
  const contrast = each => {
    const style = getComputedStyle(each), own = each.closest("svg") ? style.fill : style.color;
    const [dark, bright] = [light(own), light(ground(each))].sort((one, other) => one - other);
    return (bright + .05) / (dark + .05);
  };
  const holds = each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  const texts = all("body *").filter(each => !each.closest("script, title, desc") && holds(each) && box(each).width);
  const scrolls = all(".scroll").filter(each => each.scrollWidth > each.clientWidth);
  // Beyond the edge of the page or of its picture, unless it lies in a box that scrolls there.
  const beyond = texts.filter(each => {
    if (each.closest(".scroll")) return false;
    const outer = box(each.closest("figure") || document.body);
    return box(each).right > outer.right + 1 || box(each).left < outer.left - 1;
  });
  const clash = all("figure > svg").flatMap(picture => {
    const parts = all(":scope > text", picture).map(each => [each, box(each)]);
    return parts.filter(([one, a]) => parts.some(([other, b]) => one !== other && a.top < b.bottom - 3
      && b.top < a.bottom - 3 && a.left < b.right && b.left < a.right)).map(([each]) => each);
  });
  const wanted = all("a, summary, .scroll");
  const unreached = wanted.filter(each => {
    each.focus();
    const seen = document.activeElement === each && each.tabIndex === 0;
    return !(seen && getComputedStyle(each).outlineStyle !== "none");
  });
  const found = {
    width: innerWidth, page: document.documentElement.scrollWidth, scrolling: scrolls.length, texts: texts.length,
    ground: getComputedStyle(document.body).backgroundColor,
    faint: texts.filter(each => contrast(each) < 4.5).map(told),
    beyond: beyond.map(told), clash: clash.map(told), wanted: wanted.length, unreached: unreached.map(told),
  };
  const line = parent.document.createElement("p");
  line.textContent = JSON.stringify(found);
  parent.document.body.append(line);
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


def shown(chromium: str, folder: Path, scheme: int) -> tuple[list[dict[str, Any]], str]:
    """Show the report in frames of all widths and return what was measured there, and the browser's log.

    :param scheme: 0 for dark, 1 for light.
    """
    page = render.html(showpiece(), []).replace("</body>", f"{PROBE}</body>")
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
    found = re.findall(r"<p>(\{.*?\})</p>", done.stdout)
    return [json.loads(unescape(each)) for each in found], done.stderr


@pytest.mark.parametrize(
    ("scheme", "ground"), [(0, "rgb(22, 24, 27)"), (1, "rgb(252, 251, 249)")], ids=["dark", "light"]
)
def test_is_whole_and_legible_in_every_window(
    chromium: str, tmp_path: Path, scheme: int, ground: str
) -> None:
    """At 360, 800 and 1600 pixels nothing is cut off, covered, too faint or out of the keyboard's reach."""
    measured, log = shown(chromium, tmp_path, scheme)
    assert sorted(each["width"] for each in measured) == list(WIDTHS)
    for each in measured:
        assert each["texts"] > 500
        assert each["page"] <= each["width"], "the page scrolls sideways"
        assert each["ground"] == ground
        assert each["faint"] == [], "less than 4.5 to 1 (WCAG AA)"
        assert each["beyond"] == [], "text is cut off"
        assert each["clash"] == [], "text lies on text"
        assert each["wanted"] > 15
        assert each["unreached"] == [], "no focus, or none that shows"
    narrow = min(measured, key=lambda each: int(each["width"]))
    assert narrow["scrolling"] >= 3, (
        "totals, cost and runs are wider than a telephone and must scroll in their boxes"
    )
    assert "CONSOLE" not in log
