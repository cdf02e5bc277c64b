"""Runs of the density pipeline on digits, to which faults happen, and their verdicts."""

import contextlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mlflow
import psutil

from ebflow.checkpoint import read
from pipelines import metrics_log

from ..conftest import Store, empty_database
from ..processes import PATIENCE_S, wait

STEPS = 1200
# Options of a training of some seconds with a dozen checkpoints, long enough to be hit
LONG = ("--train.steps", str(STEPS), "--train.validate-every", "50", "--train.log-every", "25")

# A lone worker trains in the process of its stage; of two, each has its own
PAIR = ("--workers", "2")

HIT_AT = 150  # Steps after which the fault comes


@dataclass(frozen=True)
class Hit:
    """When a training is about to be hit: seconds since 1970, and the step it is at, about."""

    time: float
    step: float
    work: Path

    @classmethod
    def now(cls, work):
        """Goes on from the last two rows to the present, for no row is written at every step."""
        found = [row for row in metrics_log.read(work / metrics_log.FILE) if row["kind"] == "log"]
        (before, last), moment = found[-2:], time.time()
        pace = (last["step"] - before["step"]) / max(last["time"] - before["time"], 1e-3)
        ahead = min(pace * (moment - last["time"]), STEPS - last["step"])
        return cls(moment, last["step"] + ahead, work)


def training_of(store, at=HIT_AT):
    """Waits until a training has come beyond a step, with two checkpoints; returns it."""

    def work():
        for path in (store.home / "work" / "train").glob(f"*/{metrics_log.FILE}"):
            steps = [row["step"] for row in metrics_log.read(path) if row["kind"] == "validate"]
            if max(steps, default=0) >= at and len(checkpoints(path.parent)) > 1:
                return path.parent
        return None

    return Hit.now(wait("the training", work))


def checkpoints(work):
    """Returns the checkpoints of an unfinished training, the newest last."""
    found = (work / "checkpoints").glob("step-*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def start(store, *words, **more):
    """Starts a run; a new store gets an empty database, whose migrations take seconds."""
    database = store.home / "mlflow.db"
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(empty_database(), database)
    return store.start("run", "density", *LONG, *words, **more)


def prepared(whole, root):
    """Returns a new store that has the prepared data and the preprocessing of another."""
    store = Store(root)
    for stage in ("prepare", "preprocess"):
        found = whole.home / "artefacts" / stage
        shutil.copytree(found, store.home / "artefacts" / stage)
    return store


def end(process):
    """Waits for the end; returns exit code, and lines of stdout and stderr."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out.splitlines(), err.splitlines()


def ends_well(process):
    """Returns the lines of a run that ends well and has nothing to complain about."""
    code, out, err = end(process)
    assert (code, err) == (0, []), (code, err, out)
    return out


def children(process, words):
    """Returns the processes below one, in whose command line the words are."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if words in " ".join(child.cmdline())]


def kill(store):
    """Kills every process that works on a store, and waits for their end."""

    def left():
        return [one for one in psutil.process_iter() if _home(one) == str(store.home)]

    for one in left():
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    wait("the end of killed processes", lambda: not left())


def _home(process):
    with contextlib.suppress(psutil.Error):
        return process.environ().get("EBFLOW_HOME")
    return None


def artefact(store, stage="train"):
    """Returns the folder of a finished artefact in a store, wherever the summary has it."""
    key = store.summary()["artefacts"][stage].rpartition("/")[2]
    return store.home / "artefacts" / stage / key


def curve(store):
    """Returns the validation NLL by step, of the finished training."""
    found = metrics_log.read(artefact(store) / metrics_log.FILE)
    return {row["step"]: row["metrics"]["val/nll"] for row in metrics_log.curve(found, "validate")}


def same(one, other):
    """Checks that two finished runs are equal to the last bit: metrics, weights, optimizers."""
    assert curve(one) == curve(other) and max(curve(one)) == STEPS
    kept = ("test/nll", "test/bpd", "test/nll_se", "best/val_nll")
    assert all(one.summary()[name] == other.summary()[name] for name in kept)
    for name in ("checkpoint", "last"):
        a, b = (read(artefact(store) / name) for store in (one, other))
        for part in ("model", "ema", "optimizer"):
            ours, theirs = getattr(a, part), getattr(b, part)
            assert ours.keys() == theirs.keys() and ours
            assert all(ours[key].equal(theirs[key]) for key in ours), (name, part)


def runs(store):
    """Returns the names and statuses of all runs in the store's MLflow, in their order."""
    client = mlflow.MlflowClient(f"sqlite:///{store.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("density").experiment_id
    found = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    return [(run.data.tags.get("ebflow.name", run.info.run_name), run.info.status)
            for run in found]  # fmt: skip


def failures(store):
    """Returns the notes on failures of workers in a finished training."""
    rows = metrics_log.read(artefact(store) / metrics_log.FILE)
    return [row["note"] for row in rows if row["kind"] == metrics_log.FAILURE]


# What happens at each fault, by the order in the table.
FAULTS = {
    1: ("SIGKILL of one of two training workers", "a new worker resumes from the last checkpoint"),
    2: ("SIGKILL of the process that a stage runs in, and a lone worker with it",
        "the stage is tried again, and resumes from the last checkpoint"),
    3: ("SIGKILL of a raylet and its workers (a node of two)",
        "the other node resumes from the last checkpoint"),
    4: ("SIGKILL of the driver", "the same command resumes from the last checkpoint"),
    5: ("SIGTERM of the driver, or Ctrl-C",
        "saves a checkpoint, ends in order and says how to go on; the same command does"),
    6: ("SIGKILL of the tracking server, which comes back",
        "metrics wait in a file; none is lost"),
    7: ("SIGSTOP of one of two training workers (`--cluster.patience 15`)",
        "a worker that answers no more is replaced"),
    8: ("a hung thread in one of two training workers (`--cluster.patience 15`)",
        "the other one waits no longer, and both are replaced"),
    9: ("disk full while training",
        "ends with one line; once there is space the same command resumes"),
    10: ("a bit of the last checkpoint turned", "reported; the one before is used"),
    11: ("a Parquet shard changed after it was prepared",
         "ends with one line that names it; the same command says so, prepares the data again "
         "and trains nothing anew"),
    12: ("the same pipeline started twice at once on one store",
         "one does the work; the other waits, and finds it done"),
    13: ("a stage that fails twice on its disk", "Ray runs it again (`--retries`)"),
    17: ("SIGKILL of the driver, and its disk lost (`EBFLOW_STORAGE`)",
         "the command resumes on another machine from the last checkpoint in the bucket"),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A line of the table."""

    order: int  #: Where in the table
    fault: str  #: What was done
    happens: str  #: What comes of it
    #: Seconds until the training was again where it was hit, from the fault on or from the command
    #: that goes on; None where nothing had to recover
    recovery: float | None
    lost: int  #: Steps that were done again, about

    def save(self):
        """Writes it to the folder that ``FAULTS`` names, if it is set."""
        if place := os.environ.get("FAULTS"):
            Path(place).mkdir(parents=True, exist_ok=True)
            path = Path(place) / f"{self.order:02d}.json"
            path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def recovered(store, hit, since=None):
    """Returns the seconds that a finished run took to recover, and the steps it did again.

    A worker goes on for a moment, and may save, where it is not itself what was hit.
    """
    found = metrics_log.read(artefact(store) / metrics_log.FILE)
    at = max(i for i, row in enumerate(found) if row["kind"] == metrics_log.RESTARTED)
    back = next(row for row in found[at:] if row["step"] >= hit.step)
    return back["time"] - (since or hit.time), max(0, round(hit.step - found[at]["step"]))


def intact(order):
    """Notes a fault of which no training takes notice."""
    Fault(order, *FAULTS[order], None, 0).save()


def noted(order, store, hit, since=None):
    """Notes a fault from which a training has recovered."""
    seconds, lost = recovered(store, hit, since)
    Fault(order, *FAULTS[order], round(seconds, 1), lost).save()
