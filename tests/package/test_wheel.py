"""The wheel, in a virtual environment that has what it asks for and nothing else."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]


def run(*words, cwd):
    """Runs a command outside the checkout; returns what came of it."""
    return subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The folder of commands of an environment that holds the wheel and its core dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    built = run(sys.executable, *build, cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    commands = folder / "venv" / "bin"
    installed = run(commands / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return commands


def test_the_library_is_of_use(bare):
    done = run(bare / "python", "-I", Path(__file__).with_name("use.py"), cwd=bare)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"used {bare.parent}")


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_the_command_tells_what_it_is(words, bare):
    done = run(bare / "ebflow", *words, cwd=bare)
    assert (done.returncode, done.stderr) == (0, "") and "ebflow" in done.stdout


@pytest.mark.parametrize("command", ["run density", "tune density", "runs", "data fetch"])
def test_the_command_tells_what_it_lacks(command, bare):
    done = run(bare / "ebflow", *command.split(), cwd=bare)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("ebflow: the command needs packages that are not installed (")
    assert done.stderr.endswith('install them by: pip install "ebflow[system]"\n')
