"""Files, links and commands in README and the site exist and are understood."""

import json
import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest

from docs.measurements import papers
from pipelines.cli.main import parse_run
from pipelines.paper.everything.items import ITEMS

ROOT = Path(__file__).parents[1]
MEASUREMENTS = sorted((ROOT / "docs" / "measurements").glob("*.md"))
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
# Builds a study that is not there, which ``test_new_study.py`` runs
NEW = ROOT / "docs" / "howto" / "add-study.md"

TEXT = "\n".join(page.read_text() for page in PAGES if "_build" not in page.parts and page != NEW)
PATHS = sorted(set(re.findall(r"[`(]((?:docs|ebflow|pipelines|tuning|tests)/[\w./-]*)", TEXT)))


def commands():
    """The commands that run a pipeline, without those that leave words for the reader to fill in.

    A command in running text may go on on the next line.
    """
    inline = (" ".join(text.split()) for text in re.findall(r"`(ebflow run [^`]+)`", TEXT))
    typed = re.findall(r"^(ebflow run [^#\n]+)", TEXT.replace("\\\n", ""), re.MULTILINE)
    words = [shlex.split(text) for text in (*inline, *typed)]
    return [w for w in words if not any(re.search(r"[A-Z]$|^\[|^--help$", word) for word in w)]


def links():
    """The files that pages link to."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            yield page.relative_to(ROOT).as_posix(), target


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_a_link_leads_somewhere(page, target):
    assert (ROOT / page).parent.joinpath(target).exists()


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_is_named_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_is_understood(words):
    _, _, pipeline, *options = words
    if "--config" in options:
        pytest.skip("starts from a file")
    for option in {"--data.columns", "--data.context"} & {*options}:  # of a reader's own file
        at = options.index(option)
        names = takewhile(lambda word: not word.startswith("--"), options[at + 1 :])
        del options[at : at + 1 + len([*names])]
    if "--data.source" in options:
        options[options.index("--data.source") + 1] = "digits"
    assert parse_run(f"run {pipeline}", options).run


def test_the_page_of_the_papers_is_of_its_numbers_and_in_the_order_of_items():
    file = ROOT / "docs/measurements/papers.json"
    run = json.loads(file.read_text())
    assert (ROOT / "docs/papers.md").read_text() == papers.page(run)
    measured = {item["id"] for item in run["items"]}
    assert [item["id"] for item in run["items"]] == [i.id for i in ITEMS if i.id in measured]


@pytest.mark.parametrize("page", MEASUREMENTS, ids=lambda page: page.stem)
def test_a_page_of_measurements_begins_with_findings_and_ends_with_what_would_change_them(page):
    text = page.read_text()
    parts = [part for part in text.split("\n\n") if not part.startswith("*The paper* (")]
    first, second = (len(re.findall("^[*] ", part, re.MULTILINE)) for part in parts[1:3])
    assert first == 3 or (first, second) == (0, 3)  # a conclusion may come before the findings
    assert text.rpartition("\n## ")[2].startswith("What would change")
