"""Score matching trains without one determinant, inverse or factorization.

Two nets are cast: every function of PyTorch's interface that could factorize raises, and so does
every such operator that reaches the dispatcher, backward passes included.
"""

import re
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ebflow.bijections import Convolution, Dense
from ebflow.loss import LossModule, Progress
from ebflow.objectives import OBJECTIVES
from ebflow.randomness import RowGenerator
from pipelines.training.losses import StabilizedLoss as Loss
from tests.pipelines.training.cases import trainer

from .bijections.cases import kernel, pointwise
from .flows import FLOWS, at, contexts

MATCHING = ["dsm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm", "exact_sm"]
LINALG = """slogdet det inv inv_ex solve solve_ex lu lu_factor lu_factor_ex lu_solve qr svd svdvals
eig eigh eigvals eigvalsh cholesky cholesky_ex ldl_factor ldl_solve solve_triangular lstsq pinv
matrix_exp matrix_power tensorinv tensorsolve cond matrix_rank householder_product"""
PLAIN = """slogdet logdet det inverse lu lu_solve lu_unpack qr geqrf svd cholesky cholesky_inverse
cholesky_solve triangular_solve pinverse matrix_exp matrix_power"""
METHODS = "slogdet logdet det inverse lu qr svd cholesky pinverse matrix_exp"

FACTORIZES = re.compile(
    r"linalg_(?!vector_norm|cross)|slogdet|logdet|\bdet\b|inverse|(?<![a-z])lu_|qr\b|svd|"
    r"cholesky|triangular|geqrf|(?<![a-z])eig|pinverse|matrix_exp|lstsq"
)


class Factorized(AssertionError):
    """A determinant, an inverse or a factorization was asked for."""


class NoFactorization(TorchDispatchMode):
    """Raises at every operator that factorizes."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if FACTORIZES.search(func.name().removeprefix("aten::")):
            raise Factorized(func.name())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def forbid(monkeypatch):
    """Returns a function that forbids every factorization until the test ends."""

    def act():
        for owner, names in ((torch.linalg, LINALG), (torch, PLAIN), (torch.Tensor, METHODS)):
            for name in names.split():
                monkeypatch.setattr(owner, name, _raising(name))

    return act


def _raising(name):
    def raises(*args, **kwargs):
        raise Factorized(name)

    return raises


def steps(training, count=5):
    split = training.dataset.split("train")
    batches = split.shuffled(training.batch_size, seed=0)
    for _ in range(count):
        training.train_step(next(batches))


NETS = {
    "dense": {},
    "zero": dict(net=dict(architecture="convolutional")),
    "spectral": dict(net=dict(architecture="convolutional", spectral_norm=True)),
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("objective", MATCHING)
def test_a_training_factorizes_at_refreshes_alone(digits, forbid, objective, net):
    """The first step refreshes the anchor; in others every parameter moves without."""
    training = trainer(digits, objective, loss=dict(anchor=dict(interval=100)), clip=1.0,
                       **NETS[net])  # fmt: skip
    steps(training, 1)
    before = [p.clone() for p in training.parameters]
    forbid()
    with NoFactorization():
        steps(training, 2)
    moved = [not torch.equal(a, b) for a, b in zip(before, training.parameters, strict=True)]
    assert all(moved) and training.step == 3 and training.anchor.refreshes == 1


SWEEPS = {"ssm": {"slices": 2}, "ssm_vr": {"slices": 2}}


@pytest.mark.parametrize("name", [n for n in FLOWS if n not in ("no layer", "mixture")])
def test_no_layer_base_or_context_factorizes(name, forbid):
    """Energies, scores, sweeps and traces, forward and backward, of every small flow."""
    flow = FLOWS[name]()
    x, c = at(flow), contexts(flow)
    forbid()
    for objective, options in SWEEPS.items():
        function = partial(OBJECTIVES[objective], **options)
        module = LossModule(flow, Loss(function, low_energy=0.1, latent_mean=1.0))
        with NoFactorization():
            loss, _ = module(x, c, RowGenerator(0), Progress())
            assert loss.isfinite().all()
            if loss.requires_grad:
                loss.mean().backward()


@pytest.mark.parametrize("objective", ["ssm", "dsm"])
def test_scores_behind_a_cut_in_front_of_the_logit(digits, forbid, objective):
    options = dict(normalize="standardize", margin=1e-2)
    training = trainer(digits, objective, match_after=False, chain=options)
    forbid()
    with NoFactorization():
        steps(training, 2)


def test_relative_likelihood_never_factorizes(digits, forbid):
    training = trainer(digits, "relative_ml")
    forbid()
    with NoFactorization():
        steps(training)


@pytest.mark.parametrize("net", ["interface", "dispatcher"])
@pytest.mark.parametrize("objective", ["ml", "lazy_ml", "sml"])
def test_likelihood_would_be_caught_by_either_net(digits, forbid, objective, net):
    training = trainer(digits, objective)
    if net == "interface":
        forbid()
    with nullcontext() if net == "interface" else NoFactorization(), pytest.raises(Factorized):
        steps(training)


LAZY = {
    "dense": lambda: Dense(torch.eye(3), None),
    "zero": lambda: Convolution(kernel(1), None, (2, 2)),
    "pointwise": lambda: pointwise(torch.eye(2), (1, 1)),
}


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("call", ["log_det", "inverse"])
def test_each_use_of_a_factorization_is_caught(name, call):
    layer = LAZY[name]()
    y = torch.ones(2, *layer.event_shape)
    for gradient in (False, True):
        with NoFactorization(), pytest.raises(Factorized), torch.set_grad_enabled(gradient):
            layer.log_det() if call == "log_det" else layer.inverse(y)
