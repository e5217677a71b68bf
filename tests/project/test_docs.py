"""The examples in the README and the guides work, and their links have targets."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from redis import Redis

import harness
from harness.cli.app import MODULES
from tests import documents, reference
from tests.documents import ROOT

PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.fixture
def folder(tmp_path: Path, redis_url: str, broker: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder of a reader, and afterwards remove its modules and its keys in Redis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HARNESS_REDIS_URL", redis_url)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        module = vars(sys.modules[name])
        if str(tmp_path) in f"{module.get('__file__')} {module.get('__path__')}":
            del sys.modules[name]


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if documents.blocks(page)], ids=lambda page: page.name
)
def test_what_a_page_shows_works(page: Path, folder: Path) -> None:
    """All code and all commands of a page, in their order, and as many blocks as it shows."""
    shown = re.findall(r"^(?:```|<!--)(?:python|console)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert documents.run(page, folder) == len(shown) > 0


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that exists, and to a heading that it has."""
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if re.match(r"https?:", link):
            continue
        name, _, heading = link.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), link
        assert not heading or heading in headings(found), link


@by_page
def test_worker_classes_exist(page: Path) -> None:
    """Every named worker class exists, even in examples that are not run, such as unit and container files."""
    for name in re.findall(r"--worker-class[ =]([\w.]+)|-w ([\w.]+)", page.read_text(encoding="utf-8")):
        module, _, attribute = (name[0] or name[1]).rpartition(".")
        assert hasattr(import_module(module), attribute)


@by_page
def test_a_page_names_each_file_in_its_text(page: Path) -> None:
    """A file's name stands in the paragraph before its block, because sites do not show it with the block."""
    for block in documents.blocks(page):
        if block.kind == "python" and block.target:
            assert f"`{block.target}`" in block.lead, f"{page.name}:{block.line}: {block.target}"


@by_page
def test_each_block_can_be_pasted_alone_or_says_what_it_needs(page: Path) -> None:
    """A block that uses names of an earlier one continues it, and the paragraph before it says so."""
    for block in documents.blocks(page):
        if block.kind != "python" or block.hidden or "without its imports" in block.lead:
            continue
        missing = documents.borrowed(block.text)
        assert not missing or "continue" in block.lead.lower(), f"{page.name}:{block.line}: {sorted(missing)}"


@by_page
def test_the_url_of_redis_has_one_name(page: Path) -> None:
    """Pages read the URL of Redis from the variable that the commands read."""
    text = page.read_text(encoding="utf-8")
    others = set(re.findall(r"\b\w*REDIS_URL\b", text)) - {"HARNESS_REDIS_URL"}
    assert others <= ({"RQ_REDIS_URL"} if page.name == "quick-start.md" else set())


def test_the_reference_is_up_to_date() -> None:
    """The committed page is what ``python -m tests.reference`` makes."""
    made = reference.page()
    assert reference.PAGE.read_text(encoding="utf-8") == made, "run: python -m tests.reference"


def test_the_reference_has_every_command_and_public_name() -> None:
    """Each command, fixture and name of ``harness.__all__`` has a heading."""
    found = headings(reference.PAGE)
    assert {f"harness-{name}" for name in MODULES} <= found
    assert {name.lower() for name in harness.__all__} <= found
    assert {f"fixture-{name}" for name in ("explore", "trial", "lab", "crash_point")} <= found


def test_every_public_name_appears_in_a_guide() -> None:
    """Each name of ``harness.__all__`` is used or named in a page that is written by hand."""
    guides = " ".join(page.read_text(encoding="utf-8") for page in PAGES if page != reference.PAGE)
    assert [name for name in harness.__all__ if not re.search(rf"\b{name}\b", guides)] == []


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as they are made on GitHub."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "source",
    [
        "```python\nassert 1 == 2\n```\n",
        "<!--python\nassert 1 == 2\n-->\n",
        "```console\n$ false\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```python shop/a.py\nX = 1\n```\n```python\nimport shop.a\nassert shop.a.X == 2\n```\n",
    ],
)
def test_what_does_not_work_fails(source: str, folder: Path) -> None:
    """A page that is wrong is found."""
    page = folder / "page.md"
    page.write_text(source, encoding="utf-8")
    with pytest.raises(AssertionError):
        documents.run(page, folder)
