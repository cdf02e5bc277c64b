"""``fit``: data in, the best flow out, whatever happens."""

import copy
import math
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import ebflow
from ebflow import bijections, objectives, randomness
from ebflow.bases import GaussianMixture
from ebflow.loss import AdamW, adamw
from ebflow.tables.gathering import copies

from .bijections.cases import seeded

pytestmark = pytest.mark.usefixtures("single_precision")

FEW = dict(steps=12, patience=None, progress=False, marginals=False)
SMALL = dict(**FEW, options={"depth": 1})


def rows(count=400, seed=0):
    """Returns correlated rows of which the second column is bent."""
    x = torch.randn(count, 3, generator=seeded(seed))
    return torch.stack([x[:, 0], x[:, 0] ** 2 + 0.3 * x[:, 1], x[:, 2] - x[:, 0]], 1)


def nll(flow, x, context=None):
    with torch.no_grad():
        return -float(flow.log_prob(x, context=context).mean())


def gaussian_nll(x, held):
    covariance = torch.cov(x.T, correction=0)
    return -float(
        torch.distributions.MultivariateNormal(x.mean(0), covariance).log_prob(held).mean()
    )


@pytest.mark.system
def test_it_beats_the_gaussian_and_keeps_the_best():
    x, held = rows(2000), rows(1000, seed=1)
    flow = ebflow.fit(x, steps=150, progress=False)
    assert nll(flow, held) < gaussian_nll(x, held) - 0.3
    nlls = [row["val/nll"] for row in flow.history if row["kind"] == "validate"]
    order = torch.randperm(2000, generator=ebflow.randomness.generator(0, "validation"))
    assert nll(flow, x[order[:200]]) == pytest.approx(min(nlls), abs=1e-4)
    assert not flow.training and flow.columns is None


@pytest.mark.system
def test_a_few_rows_are_over_fitted_soon_and_the_best_is_seen():
    """Before the first validation of its interval the flow of 60 rows is at its best."""
    fast = partial(torch.optim.Adam, lr=1e-2)
    options = {"validate_every": 100, "batch_size": 54, **FEW, "steps": 150}
    flow = ebflow.fit(rows(60), optimizer=fast, **options)
    validations = [row for row in flow.history if row["kind"] == "validate"]
    assert [row["step"] for row in validations] == [0, 16, 32, 64, 100, 150]
    best = min(validations, key=lambda row: row["val/nll"])
    assert best["step"] < 100
    assert best["val/nll"] < min(row["val/nll"] for row in validations if row["step"] >= 100) - 0.2


def wide():
    """Returns a trainable base of three elements with a variance of 4."""
    return GaussianMixture(torch.ones(1), torch.zeros(1, 3), torch.tensor([4.0]), trainable=True)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    first, second, other = (ebflow.fit(rows(), seed=seed, **SMALL) for seed in (3, 3, 4))
    x = rows()
    assert torch.equal(first.log_prob(x), second.log_prob(x))
    assert not torch.equal(first.log_prob(x), other.log_prob(x))


@pytest.mark.parametrize("kind", ["frame", "float16", "big-endian"])
def test_it_takes_what_people_have(kind):
    x = rows().numpy()
    given = {
        "frame": pd.DataFrame(x, columns=["a", "b", "c"]),
        "float16": x.astype("float16"),
        "big-endian": x.astype(">f8"),
    }[kind]
    flow = ebflow.fit(given, **SMALL)
    samples = flow.sample((5,))
    assert flow.event_shape == (3,) and np.isfinite(samples).all().all()
    assert (
        type(samples) is type(given) and np.array(samples).dtype.name == np.array(given).dtype.name
    )


def test_images_come_back_as_images():
    x = torch.randint(17, (200, 1, 4, 4), generator=seeded()).to(torch.uint8)
    for architecture in ("dense", "convolutional"):
        options = {"kernel_size": 3, "blocks": 2} if architecture == "convolutional" else None
        flow = ebflow.fit(x, levels=17, architecture=architecture, options=options, **FEW)
        samples = flow.sample((3,), generator=seeded())
        assert samples.shape == (3, 1, 4, 4) and ((samples >= 0) & (samples <= 16)).all()
        assert torch.equal(samples, samples.round())
        assert torch.equal(flow.log_prob(x), flow.log_prob(x.flatten(1)))


@pytest.mark.parametrize("objective", sorted(objectives.OBJECTIVES))
def test_every_objective_by_name(objective):
    flow = ebflow.fit(rows(), objective=objective, **SMALL)
    assert nll(flow, rows()) < 10 and flow.history[-1]["step"] == FEW["steps"]


def test_an_objective_and_a_loss_of_ones_own():
    ours = partial(objectives.dsm, sigma=0.5)
    named = ebflow.fit(rows(), objective=ours, **SMALL)

    def loss(density, x, generator, progress):
        at = density.at(x)
        return at.energy + density.log_normalizer(), at

    own = ebflow.fit(rows(), loss=loss, **FEW)
    exact = ebflow.fit(rows(), objective="ml", architecture="dense", **FEW)
    torch.testing.assert_close(own.log_prob(rows()), exact.log_prob(rows()), atol=1e-4, rtol=1e-4)
    assert nll(named, rows()) < 10


def test_a_flow_is_trained_in_place_and_further():
    layers = [bijections.Dense(torch.eye(3), torch.zeros(3)), bijections.MonotoneSpline((3,))]
    own = ebflow.Flow((3,), layers)
    fitted = ebflow.fit(rows(), flow=own, **{**FEW, "steps": 100})
    assert fitted.layers[-1] is layers[-1] and not torch.equal(layers[0].weight, torch.eye(3))
    before = nll(fitted, rows())
    further = ebflow.fit(rows(), flow=fitted, **{**FEW, "steps": 100})
    assert further is fitted and nll(further, rows()) < before


def groups(*levels):
    """Returns 60 rows, whose levels take turns and move a number."""
    names = [levels[k % len(levels)] for k in range(60)]
    numbers = rows()[:60, 0].double().numpy() + 5 * np.array([name == "c" for name in names])
    return pd.DataFrame({"group": names, "x": numbers})


def test_new_rows_of_a_fitted_flow_keep_its_columns():
    flow = ebflow.fit(groups("a", "b", "c"), **{**FEW, "steps": 60})
    before = flow.log_prob(groups("b", "c"))
    ebflow.fit(groups("b", "c"), flow=flow, **{**FEW, "steps": 5})
    assert flow.columns[0].levels == ("a", "b", "c")
    assert (flow.log_prob(groups("b", "c")) - before).abs().max() < 2


@pytest.mark.parametrize("part", ["x", "validation"])
def test_a_new_level_is_refused(part):
    known, new = groups("b", "c"), groups("a", "c")
    flow = ebflow.fit(known, **{**FEW, "steps": 5})
    settings = {"x": dict(flow=flow), "validation": dict(validation=(new,))}[part]
    with pytest.raises(ValueError, match=f"{part}, column 'group', row 0: found a new level"):
        ebflow.fit(new if part == "x" else known, **{**FEW, **settings})


@pytest.mark.parametrize(
    ("name", "value"),
    [("normalize", "whiten"), ("bounds", {0: (0, 1)}), ("architecture", "dense")],
)
def test_settings_that_a_fitted_flow_already_has_are_refused(name, value):
    flow = ebflow.fit(rows(), **SMALL)
    with pytest.raises(ValueError, match=f"{name}: found with a flow"):
        ebflow.fit(rows(), flow=flow, **{**FEW, name: value})


USELESS = {
    "lr": dict(lr=1e-4, optimizer=torch.optim.Adam),
    "weight_decay": dict(weight_decay=0.1, optimizer=torch.optim.Adam),
    "shrinkage": dict(shrinkage=0.1, normalize="none"),
    "shrinkage ": dict(shrinkage=0.1, normalize="standardize"),
    "objective": dict(objective="dsm", loss=ebflow.Loss(objectives.ml)),
    "objective ": dict(objective="nonsense", loss=ebflow.Loss(objectives.ml)),
}


@pytest.mark.parametrize("name", USELESS)
def test_settings_that_another_one_makes_useless_are_refused(name):
    with pytest.raises(ValueError, match=f"{name.strip()}: found .* expected"):
        ebflow.fit(rows(), **{**FEW, **USELESS[name]})


def test_settings_that_suit_each_other_are_not_refused():
    ebflow.fit(rows(), **{**FEW, "lr": 1e-3, "shrinkage": 0.1, "normalize": "whiten"})
    ebflow.fit(rows(), **FEW, loss=ebflow.Loss(objectives.ml))


@pytest.mark.parametrize(
    ("shape", "architecture"),
    [((3, 4, 4), "glow"), ((3, 5, 4), "pixelcnn"), ((1, 4, 4), "pixelcnn")],
)
def test_colour_images_of_even_sides_get_glow(shape, architecture):
    x = torch.randint(256, (60, *shape), generator=seeded(0)).to(torch.uint8)
    flow = ebflow.fit(x, steps=2, progress=False)
    assert flow.report.architecture == architecture and flow.sample((2,)).shape == (2, *shape)


def test_base_and_dtype():
    flow = ebflow.fit(rows(), base=wide(), dtype=torch.float64, **SMALL)
    assert flow.log_prob(rows()).dtype == torch.float64
    assert not torch.equal(flow.base.roots.double(), wide().roots.double())


def test_given_validation_rows_are_not_trained_on():
    x, c = rows(), rows(seed=2)[:, :1]
    held, beside = rows(50, seed=1), rows(50, seed=3)[:, :1]
    flow = ebflow.fit(x, c, validation=(held, beside), **SMALL)
    last = [row for row in flow.history if "val/nll" in row]
    best = min(row["val/nll"] for row in last)
    assert nll(flow, held, beside) == pytest.approx(best, abs=1e-4)


def test_a_divergence_delivers_the_best_and_the_step():
    wild = partial(torch.optim.SGD, lr=1e6)
    with pytest.warns(RuntimeWarning, match=r"step \d+: .*lower the learning rate"):
        flow = ebflow.fit(rows(), optimizer=wild, architecture="dense", **FEW)
    assert flow.log_prob(rows()).isfinite().all() and flow.history


BAD = {
    "text": (lambda: ebflow.fit(np.array([["a"]] * 9)), ValueError, "found no column to model"),
    "complex": (lambda: ebflow.fit(torch.zeros(9, 2, dtype=torch.cfloat)), TypeError, "real"),
    "nan": (lambda: ebflow.fit(rows().index_fill(0, torch.tensor(7), math.nan), missing=None),
        ValueError, "x, feature 0, row 7: found nan, .*missing='drop'.*missing='impute'"),
    "context": (lambda: ebflow.fit(rows(), rows(9)), ValueError, "context: found 9 rows"),
    "architecture": (lambda: ebflow.fit(rows(), architecture="x"), ValueError, "architecture"),
    "options": (
        lambda: ebflow.fit(rows(), flow=ebflow.architectures.dense((3,)), options={"depth": 1}),
        ValueError, "options"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name):
    call, error, words = BAD[name]
    with pytest.raises(error, match=words) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


def test_history_is_drawn_and_framed():
    flow = ebflow.fit(rows(), **SMALL)
    axes = flow.history.plot()
    assert [line.get_label() for line in axes.get_lines()] == ["training NLL", "validation NLL"]
    assert {"step", "kind", "val/nll", "train/loss"} <= set(pd.DataFrame(flow.history))


def test_progress_is_one_line_on_demand(capsys):
    net = {"options": {"depth": 1}, "architecture": "dense", "marginals": False}
    ebflow.fit(rows(), steps=40, patience=None, progress=True, **net)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "validation NLL" in printed and "100%" in printed
    assert "ended after 40 steps · best validation NLL" in printed.splitlines()[-1]
    harsh = partial(torch.optim.Adam, lr=1.0)
    ebflow.fit(rows(), steps=400, patience=1, optimizer=harsh, progress=True, **net)
    assert "stopped early at step" in capsys.readouterr().err.splitlines()[-1]
    ebflow.fit(rows(), steps=40, **net)
    assert capsys.readouterr().err == ""


def test_saved_and_loaded_with_its_columns(tmp_path):
    frame = pd.DataFrame(rows().numpy(), columns=["a", "b", "c"])
    flow = ebflow.fit(frame, base=wide(), **SMALL)
    ebflow.save(flow, tmp_path / "run" / "checkpoint")
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint"):
        found = ebflow.load(folder)
        assert torch.equal(found.log_prob(rows()), flow.log_prob(rows()))
        assert found.columns == flow.columns and found.columns.names == ["a", "b", "c"]


@pytest.mark.system
def test_conditional_flows_learn_what_the_context_says():
    """y = 3 c + e^{c} n: the mean and the deviation follow c; NLL near the truth's."""
    c = torch.randn(3000, 1, generator=seeded(1))
    x = torch.cat([3 * c + c.exp() * torch.randn(3000, 1, generator=seeded(2)), -c], 1)
    x[:, 1] += 0.1 * torch.randn(3000, generator=seeded(3))
    fast = partial(torch.optim.Adam, lr=1e-2)
    flow = ebflow.fit(x, c, optimizer=fast, steps=250, options={"depth": 1}, progress=False)
    law = torch.distributions.Normal(
        torch.cat([3 * c, -c], 1), torch.cat([c.exp(), 0 * c + 0.1], 1)
    )
    truth = -float(law.log_prob(x).sum(1).mean())
    assert nll(flow, x, c) == pytest.approx(truth, abs=0.1)
    assert nll(flow, x, c.flip(0)) > truth + 1


@pytest.mark.system
def test_a_flow_above_a_mixture_replaces_an_autoregressive_one_that_over_fits():
    """Of 400 Gaussian rows. The history has both trainings, the returned one last."""
    generator, events = seeded(0), []
    x = torch.randn(400, 3, generator=generator) @ torch.randn(3, 3, generator=generator)
    options = {**FEW, "steps": 400, "patience": 2, "lr": 1e-2}
    flow = ebflow.fit(x, callback=events.append, **options)
    report = flow.report
    assert report.replaced and isinstance(flow.base, GaussianMixture)
    names = [row["architecture"] for row in flow.history]
    assert {*names} == {"autoregressive", "dense"} and names[-1] == report.architecture
    shares = [event.share for event in events]
    assert shares == sorted(shares) and shares[-1] == 1 and events[-1].kind == "end"
    asked = ebflow.fit(x, architecture="autoregressive", **options)
    assert asked.spec["architecture"] == "autoregressive" and not asked.report.replaced


def test_no_other_flow_where_no_step_is_left():
    """Patience ends at the very last step."""
    options = {**FEW, "steps": 20, "patience": 2, "validate_every": 10, "lr": 1.0}
    flow = ebflow.fit(rows(), **options)
    assert {row["architecture"] for row in flow.history} == {"autoregressive"}
    assert flow.history[-1]["step"] == 20


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_conditional_linear_gaussian_truth(seed):
    """x = A c + B e, D = 8, 20,000 rows: within 0.02 nats of the truth on 50,000 fresh rows.

    The standard error of the gap is about 0.001; a false alarm needs ten of them.
    """
    g = seeded(seed)
    a, b = torch.randn(8, 3, generator=g), torch.randn(8, 8, generator=g) / 8**0.5 + torch.eye(8)

    def draw(count):
        c = torch.randn(count, 3, generator=g)
        return c @ a.T + torch.randn(count, 8, generator=g) @ b.T, c

    flow = ebflow.fit(*draw(20_000), seed=seed, progress=False)
    x, c = draw(50_000)
    truth = torch.distributions.MultivariateNormal(c @ a.T, b @ b.T).log_prob(x)
    with torch.no_grad():
        gap = truth - flow(c).log_prob(x)
    assert float(gap.mean()) < 0.02


def test_warnings_are_none_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ebflow.fit(rows(), **SMALL)


def test_a_networks_energy_goes_through_the_objectives():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 16), nn.Softplus(), nn.Linear(16, 1))

        def forward(self, x):
            return self.net(x).squeeze(1)

    density, x = ebflow.EnergyFunction(Net()), rows(20)
    for name in ("dsm", "exact_sm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm"):
        losses = objectives.OBJECTIVES[name](density, x, generator=seeded())
        assert losses.shape == (20,) and losses.isfinite().all() and losses.requires_grad


def test_frozen_parameters_stay_frozen():
    layers = [bijections.Dense(torch.eye(3), torch.zeros(3)), bijections.MonotoneSpline((3,))]
    layers[0].requires_grad_(False)
    ebflow.fit(rows(), flow=ebflow.Flow((3,), layers), **FEW)
    assert torch.equal(layers[0].weight, torch.eye(3)) and layers[1].log_slopes.abs().max() > 0


def test_contexts_far_from_zero_keep_their_digits():
    c = 1.7e9 + 10 * torch.arange(400, dtype=torch.float64)[:, None]
    flow = ebflow.fit(rows(), c, **SMALL)
    seen = flow.standardized(flow.as_context(c))
    assert len(seen.unique()) == 400 and float(seen.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(flow(c[:, 0]).log_prob(rows()), flow(c).log_prob(rows()))


def test_columns_of_validation_rows_are_those_of_the_data():
    frame = pd.DataFrame(rows().numpy(), columns=["a", "b", "c"])
    flows = [ebflow.fit(frame, validation=(frame[[*names]],), **FEW) for names in ("bac", "abc")]
    assert flows[0].history[-1]["val/nll"] == flows[1].history[-1]["val/nll"]
    with pytest.raises(ValueError, match="validation: found no column c, expected all of a, b, c"):
        ebflow.fit(frame, validation=(frame[["b", "a"]],), **FEW)


def test_a_base_is_the_flows_own():
    base = wide()
    first = ebflow.fit(rows(), base=base, **SMALL)
    before = first.log_prob(rows())
    ebflow.fit(rows(), base=base, **SMALL)
    assert torch.equal(first.log_prob(rows()), before)
    assert torch.equal(base.roots, wide().roots)


def test_a_partial_of_a_likelihood_is_one():
    named, partial_ = (ebflow.fit(rows(), objective=o, **SMALL)
                       for o in ("ml", partial(objectives.ml)))  # fmt: skip
    assert torch.equal(named.log_prob(rows()), partial_.log_prob(rows()))


def test_a_table_gets_an_autoregressive_net_behind_its_columns():
    random = np.random.default_rng(0)
    x = np.stack([random.integers(0, 5, 400), random.standard_t(1.5, 400)], 1)
    flow = ebflow.fit(x, steps=5)
    assert flow.spec["architecture"] == "autoregressive"
    assert flow.spec["preprocessing"]["columns"].keys() == {"cells", "tails"}
    sampled = flow.sample(50, generator=randomness.generator(0))
    assert (sampled[:, 0] == sampled[:, 0].round()).all()
    plain = ebflow.fit(x, steps=5, marginals=False)
    assert not plain.dequantizer.noisy


def test_a_column_near_another_is_learned_in_a_few_steps():
    """Two modes, and the same with 0.1 n: the entropy is −0.191 − 0.884 nats."""
    first = two_modes(6000, 1) / 3
    x = torch.cat([first, first + 0.1 * torch.randn(6000, 1, generator=seeded(0))], 1).numpy()
    assert ebflow.fit(x, steps=60).report.nll < -1.075 + 0.15


def two_modes(count, seed):
    """Returns rows of one column: ±3 + 0.3 n, whose entropy is ln 2 + ln(0.3 √(2πe)) = 0.908."""
    g = seeded(seed)
    return (
        6.0 * torch.randint(2, (count, 1), generator=g)
        - 3
        + 0.3 * torch.randn(count, 1, generator=g)
    )


@pytest.mark.system
def test_one_column_of_two_modes():
    flow = ebflow.fit(two_modes(1000, 0), **{**FEW, "steps": 150})
    samples = flow.sample(4000, generator=seeded())
    assert nll(flow, two_modes(4000, 1)) < 0.96
    assert float((samples.abs() < 1.5).double().mean()) < 0.02


def test_decay_shrinks_networks_and_no_linear_layer():
    flow = ebflow.architectures.autoregressive((3,), bins=4, context=1).requires_grad_()
    optimizer = adamw(flow, list(flow.parameters()), lr=1e-3, weight_decay=0.1)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    linear = [layer.weight for layer in flow.layers if isinstance(layer, bijections.Dense)]
    assert decayed and not decayed & {id(weight) for weight in linear}
    groups = adamw(flow, list(flow.parameters()), lr=1e-3, weight_decay=0.0).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(flow.parameters()))


def test_a_fit_does_not_wait_for_the_compiler():
    """Which PyTorch's optimizers import at their first step, for more than a second."""
    code = "import sys, torch, ebflow; ebflow.fit(torch.randn(60, 2), steps=3, progress=False); "
    code += "print('torch._dynamo' in sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"


def test_its_optimizer_is_adamw_to_the_bit():
    found = []
    for kind in (AdamW, torch.optim.AdamW):
        x = torch.nn.Parameter(torch.ones(3))
        optimizer = kind([x], lr=0.1, weight_decay=0.1, fused=True)
        for step in range(4):
            optimizer.zero_grad()
            (x**3).sum().backward()
            optimizer.step()
            if step == 1:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        found.append(x.detach())
    assert torch.equal(*found) and not found[0].requires_grad


def test_a_weight_is_a_number_of_equal_rows():
    counts = torch.tensor([0, 3, 1, 2])
    assert copies(counts.double(), 0).tolist() == [1, 1, 1, 2, 3, 3]
    assert copies(torch.full((7,), 0.1), 5).tolist() == list(range(7))
    plain, same = (ebflow.fit(rows(), sample_weight=w, **SMALL) for w in (None, np.full(400, 0.3)))
    assert torch.equal(plain.log_prob(rows()), same.log_prob(rows()))


def test_weights_move_the_density():
    """Two modes at -3 and 3; nearly all weight is on the second."""
    x = two_modes(600, 0)
    weight = torch.where(x[:, 0] > 0, 1.0, 0.02)
    flow = ebflow.fit(x, sample_weight=weight, **{**FEW, "steps": 60})
    assert float((flow.sample(2000, generator=seeded()) > 0).double().mean()) > 0.9
    with pytest.raises(ValueError, match="sample_weight: found 3 weights for 600 rows"):
        ebflow.fit(x, sample_weight=[1.0, 2.0, 3.0], **FEW)
