"""Chains against closed forms: moments, weights of modes, conditional means."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from ebflow import preprocessing
from ebflow.architectures import dense
from ebflow.bijections import Affine, Dense
from ebflow.density import EnergyFunction
from ebflow.errors import NonFinite
from ebflow.evaluation import Estimate
from ebflow.flow import Flow
from ebflow.randomness import generator as derive
from ebflow.randomness import normal, uniform
from ebflow.sampling import (
    adaptive_langevin,
    annealed_langevin,
    imputation_error,
    inpaint,
    langevin,
    largest_curvature,
)
from ebflow.sampling.adaptive import blur

from . import reference
from .bijections.cases import matrix, seeded

CLOSE = dict(rtol=1e-10, atol=1e-10)


def gaussian(size=3, seed=0):
    """Returns N(μ, P⁻¹) as a flow of one dense layer, with μ and P."""
    weight, offset = matrix(size, seed), torch.linspace(-1, 1, size)
    flow = Flow((size,), [Dense(weight, offset)])
    return flow, -torch.linalg.solve(weight, offset), weight.mT @ weight


def z_of_moments(x, mean, covariance):
    """Returns z-scores of the means and of the second moments of a Gaussian sample."""
    centred = x - mean
    products = torch.einsum("bi,bj->bij", centred, centred).flatten(1)
    found = torch.cat([centred, products], 1)
    expected = torch.cat([torch.zeros_like(mean), covariance.flatten()])
    return (found.mean(0) - expected) / (found.std(0) / len(x) ** 0.5)


@pytest.mark.parametrize(
    "step, momentum",
    [
        pytest.param(0.02, 0.0, marks=pytest.mark.slow),
        (0.3, 0.0),
        pytest.param(0.02, 0.8, marks=pytest.mark.slow),
        (0.3, 0.5),
    ],
)
def test_langevin_reaches_the_moments_of_its_stationary_law(step, momentum):
    """μ and P⁻¹(I − εP/2)⁻¹; 20,000 chains, false-alarm rate 1e-3 in all."""
    flow, mean, precision = gaussian()
    steps = int(30 / step)
    start = torch.full((20_000, 3), 5.0)
    options = dict(step=step, steps=steps, momentum=momentum)
    x = langevin(flow, start, generator=derive(0), **options)
    covariance = torch.linalg.inv(precision @ (torch.eye(3) - step / 2 * precision))
    z = z_of_moments(x, mean, covariance)
    assert z.abs().max() < reference.two_sided(1e-3, z.numel()), z
    assert not x.requires_grad


def test_momentum_takes_fewer_steps():
    """Variances 1 and 1/400: 100 steps from 5 standard deviations off, 2,000 chains."""
    flow = Flow((2,), [Dense(torch.diag(torch.tensor([1.0, 20.0])), None)])
    start = torch.tensor([[5.0, 0.0]]).expand(2000, 2)
    run = partial(langevin, flow, start, generator=derive(0), step=1 / 400, steps=100)
    slow, fast = (abs(float(run(momentum=rho)[:, 0].mean())) for rho in (0.0, 0.9))
    assert slow > 3.5 and fast < 0.1


def test_langevin_is_a_function_of_the_generator_and_of_any_density():
    flow, _, _ = gaussian()
    x = torch.randn(5, 3, generator=seeded())
    run = partial(langevin, steps=20, step=0.1)
    one, same, other = (run(flow, x, generator=derive(k)) for k in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    autograd = run(EnergyFunction(flow.energy), x, generator=derive(0))
    torch.testing.assert_close(autograd, one, **CLOSE)


def test_a_chain_that_leaves_every_bound_is_told():
    flow, _, _ = gaussian()
    with pytest.raises(NonFinite, match="langevin: lower the step"):
        langevin(flow, torch.ones(2, 3), generator=derive(0), step=100.0, steps=200)


def mixture(sigma, weight=0.8):
    """Returns w N(3, ¼ + σ²) + (1 − w) N(−3, ¼ + σ²) in one dimension."""

    def log_p(x):
        variance = 0.25 + sigma**2
        logs = [
            np.log(w) - (x[:, 0] - m) ** 2 / (2 * variance)
            for w, m in ((weight, 3.0), (1 - weight, -3.0))
        ]
        return torch.logaddexp(*logs)

    return EnergyFunction(lambda x: -log_p(x))


def test_annealing_finds_the_weights_of_modes_that_langevin_leaves():
    """1,000 chains from the light mode; 0.8 ± 0.06 is 4.7 standard errors."""
    levels = np.geomspace(8.0, 0.3, 10).tolist()
    start = torch.full((1000, 1), -3.0)
    options = dict(generator=derive(0), step=0.03, steps=40)
    annealed = annealed_langevin(mixture, start, levels=levels, **options)
    assert abs(float((annealed > 0).double().mean()) - 0.8) < 0.06
    plain = langevin(mixture(0.3), start, **{**options, "steps": 400})
    assert (plain < 0).all()


def test_annealed_steps_are_proportional_to_the_variance_of_the_noise():
    """One step a level without drift: the variances of the steps add up."""
    seen = []

    def flat(sigma):
        seen.append(sigma)
        return EnergyFunction(lambda x: 0 * x.sum(1))

    start = torch.zeros(50_000, 1)
    x = annealed_langevin(flat, start, generator=derive(0), levels=(2.0, 1.0), step=0.1, steps=1)
    assert seen == [2.0, 1.0]
    assert float(x.var()) == pytest.approx(2 * 0.1 * (4 + 1), rel=4.5 * (2 / 50_000) ** 0.5)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_a_mirrored_correlation(sigma):
    images = torch.randn(2, 3, 6, 7, generator=seeded())
    at = np.arange(-2, 3)
    row = np.exp(-(at**2) / (2 * sigma**2))
    kernel = np.outer(row, row) / row.sum() ** 2
    expected = [[correlate(c, kernel, mode="mirror") for c in image] for image in images.numpy()]
    torch.testing.assert_close(blur(images, sigma), torch.tensor(np.array(expected)), **CLOSE)


def by_hand(flow, x, free, *, steps, h, snr, smoothing):
    """The adaptive chain written out, with its draws in order."""
    generator = derive(4)
    for index in range(steps):
        n = normal(x.shape, x, generator)
        width = 0.1 + 1.9 * float(uniform((1,), x, generator))
        s = flow.score(x).detach()
        r = (n.flatten(1).norm(dim=1).mean() / s.flatten(1).norm(dim=1).mean()) ** 2
        smooth = blur(x.view(len(x), 1, 3, 3), width).view(x.shape)
        move = h**2 / 2 * s + smoothing * (smooth - x)
        last = index == steps - 1
        x = x + free * (move + (0 if last else snr * h) * r * n)
    return x


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("shape", [(1, 3, 3), (9,)])
def test_adaptive_chain_is_its_formula(shape, steps):
    flow = dense(shape, depth=2, noise=0.4, generator=seeded())
    x = torch.randn(4, *shape, generator=seeded(1))
    free = torch.rand(4, *shape, generator=seeded(2)) < 0.5
    options = dict(steps=steps, h=0.4, snr=0.2, smoothing=0.05)
    image = None if len(shape) > 1 else (1, 3, 3)
    found = adaptive_langevin(flow, x, generator=derive(4), free=free, image=image, **options)
    torch.testing.assert_close(found, by_hand(flow, x, free, **options), **CLOSE)
    assert torch.equal(found[~free], x[~free])


def inpainted(*args, **options):
    """One sample of every row."""
    return inpaint(*args, **options).samples[:, 0]


def test_imputed_mean_is_the_conditional_mean():
    """Two of four elements of a Gaussian given the others: 20,000 chains, rate 1e-3 in all."""
    flow, mean, precision = gaussian(4)
    row, missing = torch.tensor([2.0, -1.0, 0.5, 1.0]), torch.tensor([True, False, True, False])
    x = row.expand(20_000, 4)
    found = inpainted(
        flow, x, missing, generator=derive(0), sampler=partial(langevin, step=0.1, steps=300)
    )
    assert torch.equal(found[:, ~missing], x[:, ~missing])
    block, cross = precision[missing][:, missing], precision[missing][:, ~missing]
    expected = mean[missing] - torch.linalg.solve(block, cross @ (row - mean)[~missing])
    covariance = torch.linalg.inv(block @ (torch.eye(2) - 0.05 * block))
    z = z_of_moments(found[:, missing], expected, covariance)
    assert z.abs().max() < reference.two_sided(1e-3, z.numel()), z


@pytest.fixture(scope="module")
def fitted(digits):
    """A Gaussian in the logits of digits, some images, and which half of each is missing."""
    chain = preprocessing.fit(digits.split("train"), normalize="whiten", shrinkage=0.05)
    flow = Flow((64,), []).double().preprocessed(chain)
    missing = torch.zeros(8, 8, dtype=torch.bool)
    missing[4:] = True
    return flow, digits.split("test").tensor()[:100], missing.flatten()


SAMPLERS = {
    "langevin": partial(langevin, step=0.05, steps=300),
    "adaptive": partial(adaptive_langevin, image=(1, 8, 8), steps=100, h=0.2),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_imputation_keeps_what_is_seen_and_looks_at_nothing_else(fitted, name):
    flow, x, missing = fitted
    run = partial(inpainted, flow, missing=missing, sampler=SAMPLERS[name])
    found = run(x, generator=derive(0))
    assert found.dtype == x.dtype and found.shape == x.shape
    assert torch.equal(found[:, ~missing], x[:, ~missing])
    assert not torch.equal(found[:, missing], x[:, missing])
    assert found.min() >= 0 and found.max() <= 16
    hidden = torch.where(missing, 16 - x, x)
    assert torch.equal(run(hidden, generator=derive(0)), found)
    assert not torch.equal(run(x, generator=derive(1)), found)


def test_completed_data_stay_and_what_is_missing_may_be_anything(fitted):
    """Completed data are no integers, to which the way back would round them."""
    flow, x, missing = fitted
    whole = x.double() + 0.3
    run = partial(inpainted, flow, missing=missing, sampler=partial(langevin, step=0.05, steps=5))
    found = run(whole.masked_fill(missing, torch.nan), generator=derive(0))
    assert torch.equal(found[:, ~missing], whole[:, ~missing])
    assert torch.equal(found, run(whole, generator=derive(0)))


def test_the_chain_runs_where_all_pixels_have_one_scale(fitted):
    """Behind the logit and before the standardising, which is the density's."""
    flow, x, missing = fitted
    seen = []

    def sampler(density, y, *, generator, free):
        seen.extend([[type(layer) for layer in density.layers], y[:, ~missing]])
        return y

    inpainted(flow, x, missing, generator=derive(0), sampler=sampler)
    assert seen[0] == [Affine, Dense]
    share = torch.sigmoid(seen[1]) * 17
    assert torch.equal(share.floor(), x[:, ~missing].double())


def test_imputation_betters_the_mean(fitted, digits):
    flow, x, missing = fitted
    sampler = partial(langevin, step=0.05, steps=300)
    samples = [inpainted(flow, x, missing, generator=derive(k), sampler=sampler) for k in range(8)]
    mean = digits.split("train").tensor().double().mean(0)
    found = imputation_error(x, torch.stack(samples).double().mean(0), missing)
    filled = imputation_error(x, mean, missing)
    assert found.value < 0.95 * filled.value, (found, filled)


def test_error_is_that_of_missing_elements_alone():
    truth = torch.tensor([[0, 4, 10], [2, 0, 6]], dtype=torch.uint8)
    imputed = torch.tensor([[0, 1, 99], [2, 4, 99]], dtype=torch.uint8)
    missing = torch.tensor([False, True, False])
    assert imputation_error(truth, imputed, missing).value == pytest.approx(12.5**0.5)
    mean = torch.tensor([0.0, 2.0, 0.0])
    assert imputation_error(truth, mean, missing) == Estimate(2.0, 0.0, 2)
    assert imputation_error(truth, truth, missing) == Estimate(0.0, 0.0, 2)
    with pytest.raises(ValueError, match="missing: found no missing element"):
        imputation_error(truth, imputed, torch.tensor(False))


def test_standard_error_is_the_spread_over_images():
    """1,000 experiments of 50 images, which differ in how much they err and how much they miss."""
    scale = torch.rand(1000, 50, 1, generator=seeded())
    imputed = torch.randn(1000, 50, 1, generator=seeded(1)) * scale.expand(1000, 50, 4)
    missing = torch.rand(1000, 50, 4, generator=seeded(2)) < 0.6
    found = [
        imputation_error(torch.zeros(50, 4), y, m) for y, m in zip(imputed, missing, strict=True)
    ]
    values, errors = torch.tensor([[f.value, f.se] for f in found]).T
    assert float(values.std()) == pytest.approx(float(errors.mean()), rel=0.1)


@pytest.mark.parametrize("free", [None, torch.tensor([True, False, True])])
def test_largest_curvature_of_a_gaussian_is_that_of_its_precision(free):
    flow, _, precision = gaussian()
    x = torch.randn(4, 3, generator=seeded())
    found = largest_curvature(flow, x, generator=derive(0), free=free, iterations=200)
    block = precision if free is None else precision[free][:, free]
    assert found == pytest.approx(float(torch.linalg.eigvalsh(block)[-1]), rel=1e-8)


def test_largest_curvature_of_a_flow_is_the_greatest_in_size_over_the_batch():
    flow = dense((4,), depth=2, noise=0.8, generator=seeded())
    x = 3 * torch.randn(5, 4, generator=seeded(1))
    hessians = [torch.autograd.functional.jacobian(flow.score, row[None])[0, :, 0] for row in x]
    expected = max(float(torch.linalg.eigvalsh(h).abs().max()) for h in hessians)
    found = largest_curvature(flow, x, generator=derive(0), iterations=500)
    assert found == pytest.approx(expected, rel=1e-6)
