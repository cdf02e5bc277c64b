"""What is written down of trials that Ray Tune tells of, and of the rule that ends them."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.tracking.reporter import Reporter
from tuning import records
from tuning.callback import TrialRecorder
from tuning.density.config import DensitySearch
from tuning.density.problem import NLL, relay
from tuning.search import Halving


def test_a_kill_while_the_rule_is_kept_leaves_what_was_kept_before(tmp_path, monkeypatch):
    """A search that goes on reads it."""

    def torn(self, file):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    file = tmp_path / "scheduler"
    Halving(DensitySearch(), NLL, file).keep()
    monkeypatch.setattr(Halving, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        Halving(DensitySearch(), NLL, file).keep()
    Halving(DensitySearch(), NLL, file)


def test_a_trial_that_is_lost_before_it_starts_has_failed(tmp_path):
    """Its node may be lost while its process comes up."""
    told = {"number": 0, "config": {}, "changes": {}, "params": {"train.lr": 1e-3}}
    config = {**told, "train.lr": 1e-3}  # as Tune has it of Optuna
    callback = TrialRecorder(tmp_path, Reporter(tmp_path / "rows"), 1, (NLL,), lambda: None)
    callback.on_trial_error(trial=SimpleNamespace(config=config))
    (record,) = records.read(tmp_path / records.TRIALS)
    assert (record.number, record.state) == (0, records.FAILED)


def validated(step, nll):
    metrics = {"val/nll": nll, "time/train_s": float(step)}
    return {"kind": "validate", "step": step, "share": step / 10, "metrics": metrics}


def test_a_trial_that_goes_on_remembers_its_best():
    reports = []
    tell = relay(reports.append)
    tell([validated(1, 5.0), validated(2, 4.0), validated(3, 7.0)])
    tell([{"kind": "log", "step": 4, "share": 0.4, "metrics": {}}])
    tell([validated(5, 6.0)])
    assert [(row["nll"], row["step"], row["share"]) for row in reports] == [
        (4.0, 3, 0.3),
        (4.0, 5, 0.5),
    ]
