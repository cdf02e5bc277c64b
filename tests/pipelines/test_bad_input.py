"""Bad input gets a message on stderr that names it, exit code 2, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

OPTIONS = {
    "no number": ("--train.lr fast",
        "Error parsing --train.lr: could not convert string to float: 'fast'"),
    "negative rate": ("--train.lr -1", "--train.lr: found -1.0, expected more than 0"),
    "infinite rate": ("--train.lr inf", "--train.lr: found inf, expected a finite number"),
    "no value": ("--train.lr", "Missing value for argument '--train.lr'"),
    "part of a step": ("--train.steps 2.5",
        "Error parsing --train.steps: invalid literal for int()"),
    "no steps": ("--train.steps 0", "--train.steps: found 0, expected at least 1"),
    "decay of one": ("--train.ema-decay 1", "--train.ema-decay: found 1.0, expected less than 1"),
    "unknown optimizer": ("--train.optimizer lbfgs",
        "invalid choice 'lbfgs' for argument '--train.optimizer'"),
    "differences of rounded energies": ("--objective.name taylor_sm --train.precision high",
        "--train.precision: found high with taylor_sm, which subtracts energies, "
        "expected highest"),
    "differences of half precision": ("--objective.name fd_ssm --train.precision bfloat16",
        "--train.precision: found bfloat16 with fd_ssm"),
    "too few GPUs": ("--cluster.gpu 1 --workers 64",
        "GPUs in this machine, expected 1 for each of --cluster.workers = 64"),
    "one sample to average": ("--evaluate.importance-weighted",
        "--evaluate.samples: found 1 with importance_weighted, expected 2 or more"),
    "a margin that is rounded away": ("--preprocess.logit 1e-7",
        "--preprocess.logit: found 1e-07, which float32 rounds away, expected at least 5e-07"),
    "more features than rows": (
        "--data.rows 120 --data.validation 30 --data.test 30 --train.batch-size 16 "
        "--preprocess.shrinkage 0",
        "--preprocess.shrinkage: found 0 with 60 training rows of 64 features"),
    "relative gradients among others": ("--objective.name relative_ml --stabilise.low-energy 1",
        "--objective.name: found 'relative_ml' with low_energy or latent_mean"),
    "no inverses to learn": ("--objective.name free_form",
        "--model.linear: found dense without learned inverses, with free_form, expected "
        "learned_inverse of the architecture dense"),
    "uneven batch": ("--workers 3",
        "--train.batch-size: found 128, expected a multiple of --cluster.workers = 3"),
    "a range from its end": ("--workers 4:1",
        "--cluster.workers: found '4:1', expected a whole number from 1 on, or MIN:MAX, as 1:4"),
    "more workers than shards": ("--workers 1:4 --cluster.shards 3",
        "--cluster.shards: found 3, expected at least 4, the most --cluster.workers"),
    "a term of a whole batch": ("--workers 1:4 --stabilise.latent-mean 1",
        "--cluster.shards: found 4 with a mean over the batch, latent_mean, expected 0"),
    "large batch": ("--train.batch-size 5000",
        "--train.batch-size: found 5000, expected at most 1297"),
    "noise of another objective": ("--objective.name ssm --objective.sigma 0.5",
        "--objective.sigma: found 0.5, which ssm does not have, expected no such option"),
    "noise of less than nothing": ("--objective.name dsm --objective.sigma -1",
        "--objective.sigma: found -1.0, expected more than"),
    "flips of rows": ("--data.source sine --train.augment flip",
        "--train.augment: found flip for examples of shape (2,), expected images of shape (H, W)"),
    "noise on levels": ("--train.noise 0.5",
        "--train.noise: found 0.5 for data of 17 integer levels, expected 0"),
    "an option of coupling": ("--model.bins 8", "--model.bins: found 8, which dense does not"),
    "misspelt option": ("--train.lrr 1",
        "Unrecognized options: --train.lrr, 1; perhaps --train.lr. See ebflow run"),
    "stray word": ("digits", "Unrecognized options: digits"),
    "flag with a value": ("--force yes", "Unrecognized options: yes"),
    "bounds of no column": ("--data.source sine --preprocess.bounds age 0 None",
        "--preprocess.bounds: found column 'age', expected one of x1, x2"),
    "bounds the wrong way round": ("--data.source sine --preprocess.bounds x1 5 -5",
        "--preprocess.bounds, column x1: found (5.0, -5.0), expected (lower, upper), numbers or "
        "None, the lower one first"),
    "unknown recipe": ("--recipe cifar", "invalid choice 'cifar' for argument '--recipe'"),
    "images in a table": ("--data.source sine --recipe images",
        "--model.architecture: found convolutional for examples of shape (2,) (it is for images "
        "of shape (H, W) or (C, H, W)), expected another, or another --recipe"),
    "unknown source": ("--data.source digit", "--data.source: found 'digit', expected one of"),
    "missing file": ("--data.source none.parquet", "none.parquet: no such file"),
    "unknown context": ("--data.context age",
        "column 'age': no such column, expected one of image, label. Choose others by "
        "--data.context"),
    "a context twice": ("--data.context label label", "--data.context: found label 2 times"),
    "no context": ("--data.context", "--data.context: found (), expected at least 1"),
    "unknown column of splits": ("--data.split-column part",
        "column 'part': no such column, expected one with names of splits of image, label. Choose "
        "others by --data.split-column"),
    "many rows": ("--data.rows 9999", "--data.rows: found 9999, expected 1 … 1797"),
    "all for test": ("--data.test 1797", "found 1797 rows, expected at least"),
    "share of two": ("--data.test 1.5", "--data.test: found 1.5, expected a whole number of rows"),
    "nameless run": ("--name ../x",
        "--name: found '../x', expected letters, digits, '.', '_' and '-'"),
    "missing config": ("--config none.yaml", "none.yaml: cannot be read (No such file"),
    "folder as config": ("--config .", ".: cannot be read (Is a directory)"),
}  # fmt: skip

FILES = {
    "not YAML": ("a: [1", "not YAML (while parsing a flow sequence"),
    "a list": ("- 1\n- 2\n", "found list, expected a mapping of sections"),
    "empty": ("", "found NoneType, expected a mapping of sections"),
    "binary": (b"\xff\xfe\x00", "not YAML ('utf-8' codec"),
    "unknown section": ("training: {}\n", ", training: found {}, expected no such option"),
    "unknown key": ("train: {rate: 1}\n", ", train.rate: found 1, expected no such option"),
    "value for section": ("train: 3\n", ", train: found 3, expected a mapping of options"),
    "wrong type": ("train: {lr: fast}\n", ", train.lr: found 'fast', expected a number"),
    "not a number": ("train: {lr: .nan}\n", ", train.lr: found nan, expected a finite number"),
    "not a choice": ("objective: {name: x}\n",
        ", objective: found {'name': 'x'}, expected a 'name' of 'ml'"),
    "a list for a name": ("objective: {name: [1]}\n", ", objective: found {'name': [1]}"),
    "noise of another objective": ("objective: {name: ssm, sigma: 0.5}\n",
        ", objective.sigma: found 0.5, which ssm does not have"),
    "null for number": ("seed: null\n", ", seed: found None, expected a whole number"),
    "no share": ("data: {test: most}\n", ", data.test: found 'most', expected a number"),
    "too many GPUs": ("cluster: {gpu: 3}\n", ", cluster.gpu: found 3, expected at most 1"),
    "no switch": ("train: {retry: 3}\n", ", train.retry: found 3, expected true or false"),
    "a number for text": ("name: 3\n", ", name: found 3, expected text"),
    "code": ("!!python/object/apply:os.system ['touch hacked']\n",
        "not YAML (could not determine a constructor"),
    "no number": ("train: !!float\n", "not YAML ("),
    "a section twice": ("seed: 1\ntrain: {}\nseed: 2\n", "not YAML (the key seed is there twice"),
    "no date": ("name: 2001-99-99\n", "not YAML (month must be in 1..12"),
    "deep": ("seed: " + "[" * 1500, "not YAML (maximum recursion depth"),
    "a long name": (f"name: {'x' * 300}\n", ", name: found 'xxx"),
    "a key of no letters": ('"\\x1b[31m": 1\n', ", \\x1b[31m: found 1, expected no such option"),
    "uneven batch": ("cluster: {workers: 5}\n",
        ", train.batch_size: found 128, expected a multiple of --cluster.workers = 5"),
}  # fmt: skip


def refused(result, line, home):
    """Asserts the message and no trace of the attempt."""
    assert line in result.refusal and not result.out
    assert not home.exists()
    assert not (home.parent / "here" / "runs").exists()


@pytest.mark.parametrize("words, line", OPTIONS.values(), ids=OPTIONS)
def test_bad_option(words, line, home, ebflow):
    refused(ebflow("run", "density", *words.split()), line, home)


@pytest.mark.parametrize("text, line", FILES.values(), ids=FILES)
def test_bad_config_file(text, line, home, ebflow, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = ebflow("run", "density", "--config", path)
    refused(result, line, home)
    assert str(path) in result.refusal


@pytest.mark.parametrize("place", ["file", "file/inner"])
def test_output_on_a_file(place, home, ebflow, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = ebflow("run", "density", "--output", tmp_path / place)
    refused(result, f"--output: found the file {tmp_path / 'file'}, expected a folder", home)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("words", ["runs", "run density"])
def test_a_working_directory_that_was_deleted(words, home, ebflow):
    Path.cwd().rmdir()
    refused(ebflow(*words.split()), "the working directory was deleted: cd into another", home)


@pytest.mark.parametrize("name", ["summary.json", "best.yaml", "trials.json"])
def test_files_of_the_user_where_results_go(name, home, ebflow, tmp_path):
    (tmp_path / name).write_text("mine")
    result = ebflow("tune", "density", "--output", tmp_path)
    refused(result, f"--output: found {tmp_path / name}, which no run left, expected none", home)
    assert (tmp_path / name).read_text() == "mine"


def test_store_on_a_file(home, ebflow, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("EBFLOW_HOME", str(tmp_path / "file" / "store"))
    line = f"EBFLOW_HOME: found the file {tmp_path / 'file'}, expected a folder"
    refused(ebflow("run", "density"), line, home)


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_where_nothing_can_be_written(home, ebflow, monkeypatch, words):
    result = ebflow("run", "density", "--output", "/proc/none", *words)
    refused(result, "--output: found /proc, where one may not write", home)
    monkeypatch.setenv("EBFLOW_HOME", "/proc/none")
    result = ebflow("run", "density", *words)
    refused(result, "EBFLOW_HOME: found /proc, where one may not write", home)


@pytest.mark.parametrize(
    "place", ["garbage", "localhost:5000", "runs/mlflow", "http://[::1", "http://h:port"]
)
@pytest.mark.parametrize("words", ["run density", "submit density --dry-run", "runs"])
def test_a_tracking_server_is_a_url(home, ebflow, monkeypatch, place, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    line = f"MLFLOW_TRACKING_URI: found {place}, expected the URL of an MLflow server, as http://"
    refused(ebflow(*words.split()), line, home)


def column(values):
    return pa.table({"a": np.arange(40.0), "b": pa.array(values)})


SQUARES = [float(k * k) for k in range(39)]

VALUES = {
    "null": (column([None, *SQUARES]), "bad.parquet, column 'b', row 0: found null"),
    "constants": (column([1.0] * 40).drop_columns("a"), "found no column whose values vary"),
}


@pytest.mark.parametrize("table, line", VALUES.values(), ids=VALUES)
def test_bad_values(table, line, home, ebflow, tmp_path):
    path = tmp_path / "bad.parquet"
    pq.write_table(table, path)
    words = ("--train.batch-size", "2", "--data.missing", "None", "--data.source", path)
    dry = ebflow("run", "density", "--dry-run", *words)
    assert line in dry.refusal and not home.exists()
    result = ebflow("run", "density", *words)
    assert (result.code, result.err) == (2, dry.err)
    assert not (home.parent / "here" / "runs").exists()


@pytest.mark.parametrize("words", [["--train.lr", "-1"], ["--data.source", "none.parquet"]])
def test_a_real_process(words, home):
    command = [sys.executable, "-m", "pipelines.cli", "run", "density", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert not home.exists()


def test_a_dry_run_reads_what_options_of_data_let_in(home, ebflow, tmp_path):
    """Times, a missing entry, and images with classes: all chosen before there is a recipe."""
    noise = np.random.default_rng(0)
    table = column(pa.array(range(40), pa.timestamp("s")))
    table = table.append_column("c", pa.array([None, *noise.normal(size=39)]))
    pq.write_table(table, tmp_path / "times.parquet")
    for k in range(8):
        file = tmp_path / "images" / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (6, 9), dtype=np.uint8)).save(file)
    dry = ("run", "density", "--dry-run", "--train.batch-size", 2, "--data.source")
    times = ("--data.missing", "drop")
    images = ("--data.label", "label", "--data.validation", 2)
    for words in ((tmp_path / "times.parquet", *times), (tmp_path / "images", *images)):
        ebflow(*dry, *words).quiet()
    refused = ebflow(*dry, tmp_path / "times.parquet", "--data.missing", "None")
    assert len(refused.err) == 1
    assert not home.exists()
