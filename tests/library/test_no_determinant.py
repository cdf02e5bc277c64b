"""Score matching trains without one determinant, inverse or factorisation.

Two nets are cast: every function of PyTorch's interface that could factorise raises, and so does
every such operator that reaches the dispatcher, backward passes included.
"""

import re

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ebflow.bijections import Convolution, Dense, Pointwise

from .bijections.cases import kernel
from .training import trainer

MATCHING = ["dsm", "ssm", "ssm_vr", "fd_ssm", "exact_sm", "taylor_sm"]
SLICED = ["ssm", "ssm_vr", "taylor_sm"]

LINALG = """slogdet det inv inv_ex solve solve_ex lu lu_factor lu_factor_ex lu_solve qr svd svdvals
eig eigh eigvals eigvalsh cholesky cholesky_ex ldl_factor ldl_solve solve_triangular lstsq pinv
matrix_exp matrix_power tensorinv tensorsolve cond matrix_rank householder_product"""
PLAIN = """slogdet logdet det inverse lu lu_solve lu_unpack qr geqrf svd cholesky cholesky_inverse
cholesky_solve triangular_solve pinverse matrix_exp matrix_power"""
METHODS = "slogdet logdet det inverse lu qr svd cholesky pinverse matrix_exp"

FACTORISES = re.compile(
    r"linalg_(?!vector_norm|cross)|slogdet|logdet|\bdet\b|inverse|lu_|qr\b|svd|cholesky|"
    r"triangular|geqrf|eig|pinverse|matrix_exp|lstsq"
)


class Factorised(AssertionError):
    """A determinant, an inverse or a factorisation was asked for."""


class NoFactorisation(TorchDispatchMode):
    """Raises at every operator that factorises."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if FACTORISES.search(func.name().removeprefix("aten::")):
            raise Factorised(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def forbid(monkeypatch):
    """Returns a function that forbids every factorisation until the test ends."""

    def act():
        for owner, names in ((torch.linalg, LINALG), (torch, PLAIN), (torch.Tensor, METHODS)):
            for name in names.split():
                monkeypatch.setattr(owner, name, _raising(name))

    return act


def _raising(name):
    def raises(*args, **kwargs):
        raise Factorised(name)

    return raises


def steps(training, count=5):
    split = training.dataset.split("train")
    batches = split.shuffled(training.batch_size, seed=0)
    for _ in range(count):
        training.train_step(next(batches).x)


TRAININGS = {
    "plain": {},
    "2 slices": dict(loss=dict(hyper=dict(slices=2))),
    "orthogonal": dict(loss=dict(hyper=dict(slices=3, directions="orthogonal"))),
    "ladder of pairs": dict(loss=dict(hyper=dict(sigma=(0.5, 0.1), antithetic=True))),
    "clipped": dict(clip=1.0),
    "stabilised": dict(loss=dict(low_energy=0.1, latent_mean=1.0)),
    "residual": dict(net=dict(depth=3, residual=True)),
    **{
        f"convolutional, {padding}": dict(net=dict(architecture="convolutional", padding=padding))
        for padding in ("zero", "circular", "masked")
    },
    "convolutional, normalised": dict(net=dict(architecture="convolutional", spectral_norm=True)),
    "coupling": dict(net=dict(architecture="coupling", depth=1, hidden=4)),
    "image": dict(net=dict(architecture="glow", depth=1, hidden=4, activation="swish")),
    "logit behind the cut": dict(match_after=False, front=dict(normalise="standardise")),
}


def made(digits, objective, name):
    if name in ("2 slices", "orthogonal") and objective not in SLICED:
        pytest.skip("no slices")
    if name == "ladder of pairs" and objective != "dsm":
        pytest.skip("no noise")
    if name == "logit behind the cut" and objective in ("dsm", "fd_ssm", "taylor_sm"):
        pytest.skip("noise leaves the logit's domain")
    return trainer(digits, objective, **TRAININGS[name])


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("objective", MATCHING)
@pytest.mark.timeout(900)
def test_score_matching_never_factorises(digits, forbid, objective, name):
    training = made(digits, objective, name)
    before = [p.clone() for p in training.parameters]
    forbid()
    with NoFactorisation():
        steps(training)
    moved = [not torch.equal(a, b) for a, b in zip(before, training.parameters, strict=True)]
    assert all(moved) and training.step == 5


def test_relative_likelihood_never_factorises(digits, forbid):
    training = trainer(digits, "relative_ml")
    forbid()
    with NoFactorisation():
        steps(training)


@pytest.mark.parametrize(
    "net", [n for n in TRAININGS if n.startswith("convolutional")] + ["plain"]
)
@pytest.mark.parametrize("objective", MATCHING)
def test_anchored_matching_factorises_at_refreshes_alone(digits, forbid, objective, net):
    training = trainer(digits, objective, loss=dict(anchor=dict(interval=100)), **TRAININGS[net])
    steps(training, 1)
    forbid()
    with NoFactorisation():
        steps(training, 5)
    assert training.loss.anchor.refreshes == 1


@pytest.mark.parametrize("objective", ["ml", "lazy_ml", "sml"])
def test_likelihood_would_be_caught_by_the_interface(digits, forbid, objective):
    training = trainer(digits, objective)
    forbid()
    with pytest.raises(Factorised):
        steps(training)


@pytest.mark.parametrize("objective", ["ml", "lazy_ml", "sml"])
def test_likelihood_would_be_caught_by_the_dispatcher(digits, objective):
    training = trainer(digits, objective)
    with NoFactorisation(), pytest.raises(Factorised):
        steps(training)


LAZY = {
    "dense": lambda: Dense(torch.eye(3), None),
    "zero": lambda: Convolution(kernel(1), None, (2, 2)),
    "circular": lambda: Convolution(kernel(1), None, (2, 2), padding="circular"),
    "pointwise": lambda: Pointwise(torch.eye(2), (1, 1)),
}


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("call", ["log_det", "inverse"])
def test_each_use_of_a_factorisation_is_caught(name, call):
    layer = LAZY[name]()
    y = torch.ones(2, *layer.event_shape)
    for gradient in (False, True):
        with NoFactorisation(), pytest.raises(Factorised), torch.set_grad_enabled(gradient):
            layer.log_det() if call == "log_det" else layer.inverse(y)
