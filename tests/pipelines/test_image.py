"""The image of a cluster's nodes: its instructions, held against the files that they name."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipelines.cli.submit import checkout

EXTRAS = ("data", "system", "dev", "docs")
KNOWN = ("FROM", "WORKDIR", "COPY", "RUN")
SUFFIXES = (".py", ".j2", ".typed")


@pytest.fixture(scope="module")
def instructions():
    lines = (checkout() / "deploy" / "Dockerfile").read_text().splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]


def copied(instructions):
    """Returns the source and the place of everything that the image takes along."""
    found = [
        [w for w in words[1:] if w[:2] != "--"] for words in instructions if words[0] == "COPY"
    ]
    return [(source, words[-1]) for words in found for source in words[:-1]]


def test_dependencies_are_installed_before_the_code_is_there(instructions):
    names = [words[0] for words in instructions]
    assert set(names) == set(KNOWN) and names[:2] == ["FROM", "WORKDIR"]
    installs = [i for i, words in enumerate(instructions) if words[:2] == ["RUN", "pip"]]
    first, last = (" ".join(instructions[i][1:]) for i in installs)
    assert first == 'pip install --no-cache-dir --constraint requirements.lock ".[system]"'
    assert last == "pip install --no-cache-dir --no-deps --force-reinstall ."
    below, above = instructions[: installs[0]], instructions[installs[0] : installs[1]]
    assert {source for source, _ in copied(below)} == {
        "pyproject.toml", "requirements.lock", "README.md", "LICENSE"
    }  # fmt: skip
    assert {source for source, _ in copied(above)} == {"ebflow", "pipelines", "tuning"}
    assert installs[1] == len(instructions) - 1


def test_the_lock_has_one_version_that_is_allowed_of_all_that_is_needed(project):
    lines = (checkout() / "requirements.lock").read_text().splitlines()
    locked = dict(line.lower().split("==") for line in lines)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *sum((extras[name] for name in EXTRAS), [])]
    for requirement in map(Requirement, needed):
        if requirement.name != "ebflow":
            assert locked[requirement.name] in requirement.specifier, requirement


def test_what_is_copied_is_there_and_git_knows_it(instructions):
    tracked = subprocess.run(
        ["git", "-C", checkout(), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for source, _ in copied(instructions):
        assert any(path == source or path.startswith(f"{source}/") for path in tracked), source


def test_the_base_image_has_the_ray_and_the_python_that_are_asked_for(instructions, project):
    image, _, tag = instructions[0][1].partition(":")
    ray, _, python = tag.partition("-py")
    system = map(Requirement, project["optional-dependencies"]["system"])
    wanted = {found.name: found for found in system}["ray"]
    assert image == "rayproject/ray" and ray in wanted.specifier
    assert f"{python[0]}.{python[1:]}" in SpecifierSet(project["requires-python"])
    assert ray == version("ray")


def test_what_is_copied_installs_all_of_the_packages(instructions, project, tmp_path):
    """A wheel made of what the image copies, and of nothing else."""
    for source, place in copied(instructions):
        path = checkout() / source
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / place / ("" if path.is_dir() else source))
    made = tmp_path / "made"
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = made.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("METADATA"))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    files = {str(p.relative_to(checkout())) for n in ("ebflow", "pipelines", "tuning")
             for s in SUFFIXES for p in (checkout() / n).rglob(f"*{s}")}  # fmt: skip
    assert files <= set(names) and len(files) > 100
    found = {str(Requirement(text)) for text in headers.get_all("Requires-Dist")}
    assert {str(Requirement(text)) for text in project["dependencies"]} <= found
