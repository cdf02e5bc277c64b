"""Help and lists."""

import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from pipelines.config.recipes import RECIPES
from pipelines.data.files import FORMATS


def test_help_lists_the_commands(ebflow):
    for words in ([], ["--help"], ["-h"], ["help"]):
        result = ebflow(*words)
        assert result.code == 0
        for command in ("run density", "runs", "data list", "export"):
            assert f"ebflow {command}" in result.text


@pytest.mark.parametrize("command", ["run density", "runs", "data list", "data fetch", "export"])
def test_every_command_has_help(command, ebflow):
    result = ebflow(*command.split(), "--help")
    assert result.code == 0 and f"usage: ebflow {command}" in result.text


@pytest.mark.parametrize("words", ["foo", "foo --help", "foo bar -h", "run", "run foo --help",
                                   "run nothing", "data", "data show"])  # fmt: skip
def test_an_unknown_command_is_refused(words, home, ebflow):
    name = " ".join(word for word in words.split()[:2] if not word.startswith("-"))
    result = ebflow(*words.split())
    assert f"found command '{name}', expected one of run density" in result.refusal
    assert not result.out and not home.exists()


@pytest.mark.parametrize("words", ["run --help", "data -h"])
def test_help_of_a_group_lists_its_commands(words, ebflow):
    result = ebflow(*words.split())
    group = words.split()[0]
    lines = [line.split()[1] for line in result.out if line.startswith("  ebflow")]
    assert result.code == 0 and set(lines) == {group}


@pytest.mark.parametrize("command", ["run density --help", "data list"])
def test_a_closed_pipe_gives_no_traceback(command):
    words = [sys.executable, "-m", "pipelines.cli", *command.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        printed = process.stderr.read().decode()
    assert (process.returncode, printed) == (1, "")


@pytest.mark.parametrize(("words", "resumes"), [
    ("run density", True), ("tune density --dry_run", False), ("run density --dry-run", False),
    ("runs", False), ("score flow rows.csv --output s.csv", False),
])  # fmt: skip
def test_only_runs_and_searches_can_be_resumed(words, resumes, ebflow, monkeypatch):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.cli.main._run", interrupted)
    (line,) = ebflow(*words.split()).err
    assert line.startswith("ebflow: interrupted") and ("resume with: cd " in line) == resumes


def test_help_of_the_pipeline_gives_recipe_type_default_and_unit(ebflow):
    printed = unboxed(ebflow("run", "density", "--help"))
    assert f"--recipe {{None,{','.join(RECIPES)}}}" in printed.replace(", ", ",")
    assert re.search(r"--train\.max-seconds \S*None\S* ?FLOAT training time at most, s ", printed)
    assert "--workers N MIN:MAX" in printed
    assert "(default: cosine)" in printed


def test_named_data_sets_and_kinds_of_files_are_listed(ebflow):
    listed = re.sub(r"\s+", " ", ebflow("data", "list").quiet().text)
    assert f"or the path of a file ({', '.join(FORMATS)})" in listed
    assert "digits" in listed and "1797" in listed


def test_version(ebflow):
    assert ebflow("--version").text == f"ebflow {version('ebflow')}\n"


def unboxed(result):
    """Returns a help text in one line, without its boxes."""
    return re.sub(r"[│\s]+", " ", result.text.replace("|", " "))


# What commands that compute nothing import, of what takes long to, and print
LIGHT = {
    "run density --help": ([], "usage: ebflow run density"),
    "run density --data.source {table} --dry-run": (["redun"], "evaluate   run\n"),
    "run sample-complexity --scale smoke --dry-run": (["redun"], "conclude   run"),
    "run paper --experiment missing --scale smoke --sources {table} --dry-run": (
        ["redun"],
        "compare    run",
    ),
}


@pytest.mark.system
@pytest.mark.parametrize("command, expected, text", [(k, *v) for k, v in LIGHT.items()], ids=LIGHT)
def test_what_is_heavy_is_imported_by_who_needs_it(command, expected, text, home, tabular_file):
    words = command.format(table=tabular_file).split()
    code = (
        "import sys; from pipelines.cli.main import main\n"
        f"main({words!r})\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'redun', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(expected) in done.stdout.splitlines()
    assert text in done.stdout and not home.exists()


def test_the_results_of_a_cached_run_need_no_torch(tmp_path):
    for folder in ("trained/checkpoint", "evaluated", "results"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "evaluated" / "reference.safetensors").touch()
    code = (
        "import sys; from pathlib import Path; from types import SimpleNamespace as Artefact\n"
        "import pipelines.engine.runner; from pipelines.density.graph import add_files\n"
        f"root = Path({str(tmp_path)!r}); names = ('trained', 'evaluated')\n"
        "add_files({n: Artefact(path=root / n) for n in names}, root / 'results')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def without(module, *words):
    """Runs a command in a process that lacks a module."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; from pipelines.cli.main import main\n"
        f"sys.exit(main({list(words)!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(("module", "command"), [
    ("tyro", "run density"),
    ("pydantic", "runs"),
    ("mlflow", "detect models:/flow@best rows.csv"),
    ("ray.job_submission", "submit density --address http://127.0.0.1:9"),
])  # fmt: skip
def test_a_package_that_is_not_installed_is_one_line(module, command):
    done = without(module, *command.split())
    assert done.returncode == 2
    assert done.stderr == (
        f"ebflow: the command needs packages that are not installed ({module}); install them by: "
        'pip install "ebflow[system]"\n'
    )


def test_a_module_of_ours_that_is_missing_is_a_fault():
    done = without("pipelines.cli.data", "data", "list")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_fetching_what_cannot_be_fetched(ebflow):
    result = ebflow("data", "fetch", "digits")
    assert "invalid choice 'digits'" in result.refusal


def test_a_dry_run_on_nothing_writes_nothing(home, ebflow):
    result = ebflow("run", "density", "--dry-run")
    assert result.code == 0 and result.text.count(" run\n") == 5
    assert not home.exists()
