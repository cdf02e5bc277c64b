"""The training of a classifier: its penalties, diagnoses and warnings."""

import pytest
import torch

from ebflow.alignment.fooling import linear, shifted
from ebflow.alignment.logit import ClassLogit
from ebflow.density import EnergyFunction
from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.config import NetConfig, RegulariserConfig
from pipelines.gradient_alignment.models import BASELINE

from .cases import by_name, fitted


def test_the_floor_is_in_units_of_the_smoothed_data():
    config = RegulariserConfig(name="score", floor=1.5, stability=0.0, directions="rademacher")
    peak = EnergyFunction(lambda x: 1e4 * x.square().sum(1))  # a trace of −2e4 · 64
    floored = fitting.penalty(config, (8, 8), 0.1)(
        peak, torch.zeros(1, 64), generator=torch.Generator()
    )
    assert float(floored.detach()) == pytest.approx(-1.5 * 64 / 0.1**2)
    assert fitting.penalty(RegulariserConfig(), (8, 8), 0.1) is None


def test_a_centred_regularizer_and_its_control_do_not_see_a_shift(digits):
    found = by_name()
    for name in ("centred", "centred-control"):
        config = found[name].classifier.regularizer
        assert config.centred and config.weight == 0.1
        draws = torch.Generator().manual_seed(0)
        x = torch.rand(8, 64, generator=draws, dtype=torch.float64)
        pattern, labels = torch.rand(64, generator=draws).double(), torch.arange(8) % 10
        network = fitting.network(NetConfig(), (8, 8), 10, 0).double()
        penalty = fitting.penalty(config, (8, 8), 0.1)
        losses = [
            penalty(ClassLogit(f, labels), x, generator=torch.Generator().manual_seed(0))
            for f in (network, shifted(network, linear(pattern, 10.0)))
        ]
        torch.testing.assert_close(*losses)


def test_a_collapse_is_diagnosed_by_name(digits, tmp_path):
    """Data said to be smoothed by 100 have a floor that any network is below."""
    assert fitted(digits, tmp_path / "sound").diagnosis == ""
    diagnosis = fitted(digits, tmp_path / "low", smoothing=100.0).diagnosis
    assert (
        diagnosis.startswith("collapse: mean trace -") and "below the floor -0.0064" in diagnosis
    )


def test_a_divergence_is_diagnosed_and_told_as_no_number(digits, tmp_path):
    found = fitted(digits, tmp_path / "work", lr=1e30)
    assert found.diagnosis.startswith("diverged: loss: found") and not found.epochs
    fitting.save(tmp_path, found)
    kept = fitting.load(tmp_path, (8, 8), 10)
    assert kept.diverged and kept.diagnosis == found.diagnosis


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("paper-score", ["a gradient-norm penalty in disguise: 8 mu / (K sigma²) = 80 > 1",
                         "noise swamps the trace"]),
        ("paper-anti", ["noise swamps the trace"]),
        ("gnorm", []),
        (BASELINE, []),
    ],
)  # fmt: skip
def test_warnings_of_settings(digits, name, starts, tmp_path):
    regularizer = by_name()[name].classifier.regularizer
    found = fitted(digits, tmp_path, regularizer=regularizer, epochs=1).warnings
    assert len(found) == len(starts)
    assert all(line.startswith(start) for line, start in zip(found, starts, strict=True))
