"""Training of ensembles: minibatches, and the scores that networks learn."""

import pytest
import torch

from ebflow.complexity import errors
from ebflow.complexity.denoisers import (
    PreconditionedDenoisers,
    RectifiedDenoisers,
    ResidualNetwork,
)
from ebflow.complexity.errors import denoising_errors
from ebflow.complexity.instances import HALF, far_mode, stratified, worst_eta
from ebflow.complexity.truths import load
from ebflow.randomness import generator, normal
from pipelines.sample_complexity.training import TrainingSets, train
from tests.library.complexity.cases import gaussian
from tests.library.conftest import double_precision, single_precision  # noqa: F401


def ensemble(count, size=1, radius=4.0, seed=0, **options):
    source = generator(seed)
    return RectifiedDenoisers(count, size, radius=radius, generator=source, **options).double()


def fit(ensemble, sets, *, steps, **options):
    for _ in train(ensemble, sets, lengths=(steps,), **options):
        pass


def training_sets(clean, owner, sizes, noise=None):
    seeds, rare = torch.arange(len(clean)), torch.zeros(clean.shape[:2], dtype=torch.bool)
    return TrainingSets(seeds, torch.tensor(owner), torch.tensor(sizes), clean, rare, noise)


def distances(net, truth, x):
    return (net.score(x, HALF) - truth.smoothed(HALF).score(x)).norm(dim=-1)


def test_a_batch_has_the_first_samples_of_its_set():
    clean = torch.arange(20.0).view(2, 10, 1)
    x, z = training_sets(clean, [0, 1, 1], [10, 3, 1], -clean).batch(400, generator(0))
    assert torch.equal(z, -x)
    seen = [sorted(set(row.flatten().tolist())) for row in x]
    assert seen == [list(range(10)), [10.0, 11.0, 12.0], [10.0]]


@pytest.mark.parametrize("noise", ["once", "fresh"])
def test_the_score_is_learned_from_many_samples_and_not_from_few(noise):
    truth, samples = gaussian(2), generator(1)
    clean = truth.sample(4096, generator=samples)[None]
    z = normal(clean.shape, clean, samples)
    net = ensemble(2, size=2, radius=1.0)
    sets = training_sets(clean, [0, 0], [4, 4096], z if noise == "once" else None)
    fit(net, sets, generator=generator(2), least=HALF, steps=300, rows=64)
    test = stratified(truth, 2000, generator=generator(3))
    found = distances(net, truth, test.noisy)
    few, many = (HALF * errors.l2(found, test.weights)).tolist()
    assert many < 0.15 and few > 2 * many


def test_a_network_that_saw_no_far_sample_misses_two_epsilon():
    """At the far mode, outside its samples, the error of nine networks is about 2 ε."""
    ratio, epsilon = 16.0, 0.35
    truth = far_mode(ratio, worst_eta(ratio, epsilon))
    first = torch.zeros(1024, dtype=torch.long)
    bulk = truth.sample_components(first, generator=generator(4))
    net = ensemble(9, radius=ratio * HALF)
    sets = training_sets(bulk[None], [0] * 9, [1024] * 9)
    fit(net, sets, generator=generator(5), least=HALF, steps=300)
    test = stratified(truth, 1000, generator=generator(6))
    found = distances(net, truth, test.noisy)
    missed = HALF * errors.l2(found, test.weights * (test.component == 1))
    assert missed.min() > 0.5 * epsilon and float(missed.median()) == pytest.approx(0.7, rel=0.3)
    assert (HALF * errors.quantile(found, test.weights, 0.1)).median() < 0.3


def test_networks_learn_the_scores_of_a_range_of_levels():
    truth = gaussian()
    clean = truth.sample(2048, generator=generator(1))[None]
    net = ensemble(1, radius=1.0)
    sets = training_sets(clean, [0], [2048])
    fit(net, sets, generator=generator(7), least=HALF, highest=4.0, steps=400)
    for sigma in (HALF, 3.0):
        x = torch.linspace(-2, 2, 9)[:, None] * (0.5 + sigma**2) ** 0.5
        exact = truth.smoothed(sigma).score(x)
        assert (sigma * (net.score(x, sigma)[0] - exact)).abs().max() < 0.35


@pytest.mark.system
@pytest.mark.usefixtures("single_precision")
def test_training_approaches_the_scores_of_images():
    """The L2 error falls by a third from that of the best linear denoiser, at two levels."""
    truth = load("digits")
    clean = truth.clean.sample(4096, generator=generator(3)).float()[None]
    net = PreconditionedDenoisers([ResidualNetwork(64, 64, 3, generator(4))])
    before = [of_images(net, truth, sigma) for sigma in (0.3, 1.5)]
    sets = training_sets(clean, [0], [4096])
    fit(net, sets, generator=generator(5), least=0.2, highest=20.0, steps=800, rows=64, lr=4e-3)
    after = [of_images(net, truth, sigma) for sigma in (0.3, 1.5)]
    assert all(a < 0.67 * b for a, b in zip(after, before, strict=True))


def of_images(net, truth, sigma):
    measured = denoising_errors(
        lambda x, sigma: net.denoise(x.float(), sigma), truth, sigma, points=20,
        generator=generator(6),
    )  # fmt: skip
    return float(measured["sigma_l2"])
