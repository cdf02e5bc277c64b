"""Exact probabilities of the levels of pixels."""

import itertools

import pytest
import torch

import ebflow
from ebflow import train
from ebflow.architectures import pixelcnn
from ebflow.bases import GaussianMixture
from ebflow.bijections import PixelCNN, SmoothLeakyReLU, pixels
from ebflow.recipes import FEW_ROWS, recipe
from tests.library.flows import seeded, stirred


def flow(shape=(2, 3, 4), levels=5, scale=0.2, **options):
    """Returns a small flow away from its start."""
    created = pixelcnn(shape, values=levels, hidden=8, depth=3, **options)
    return stirred(created, scale).requires_grad_(False)


def images(one, count=6, levels=5):
    """Returns images of integers plus noise, and contexts if the flow takes any."""
    x = torch.randint(0, levels, (count, *one.event_shape), generator=seeded(1)).double()
    x = x + torch.rand(x.shape, generator=seeded(2), dtype=x.dtype)
    c = torch.randn(count, one.context, generator=seeded(3), dtype=x.dtype)
    return x, c if one.context else None


def test_probabilities_of_all_images_add_up_to_one():
    one = flow((2, 1, 2), 3)
    every = itertools.product(range(3), repeat=4)
    x = torch.tensor([*every], dtype=torch.float64).view(-1, 2, 1, 2) + 0.5
    torch.testing.assert_close(one.log_prob(x).exp().sum(), torch.tensor(1.0).double())


def test_an_element_depends_on_those_before_it_in_reading_order():
    one = flow()
    layer, (x, _) = one.layers[0], images(one, 1)
    seen = torch.zeros(24, 24, dtype=torch.bool)
    before = layer.log_probs(x)[0]
    for k in range(24):
        moved = x.clone().flatten()
        moved[k] = (moved[k] + 1) % 5
        seen[:, k] = (layer.log_probs(moved.view_as(x))[0] != before).any(1)
    order = torch.arange(24).view(2, 3, 4).movedim(0, 2).flatten()  # channels of a pixel together
    assert not seen[order][:, order].triu().any()
    assert seen[order[1:], order[:-1]].sum() > 20


@pytest.mark.parametrize("context", [0, 3])
def test_the_inverse_returns_the_images(context):
    one = flow(context=context)
    x, c = images(one)
    latent = one.to_latent(x, context=c)
    torch.testing.assert_close(one.from_latent(latent, context=c), x, atol=1e-6, rtol=0)
    u = torch.randn(4, 24, generator=seeded(5), dtype=x.dtype)
    c = c[:4] if context else None
    back = one.to_latent(one.from_latent(u, context=c), context=c)
    torch.testing.assert_close(back, u, atol=1e-2, rtol=0)


def test_the_density_does_not_depend_on_the_noise_or_the_number_of_images(monkeypatch):
    one = flow(context=2)
    x, c = images(one)
    expected = one.log_prob(x, context=c)
    torch.testing.assert_close(one.log_prob(x.floor(), context=c), expected)
    monkeypatch.setattr(pixels, "VALUES", 2 * 24 * 5)
    with torch.no_grad():
        torch.testing.assert_close(one.log_prob(x, context=c), expected)


@pytest.mark.parametrize("changed", ["layers", "base"])
def test_latents_count_unless_they_are_normal_and_only_reshaped(changed):
    one = flow()
    x, _ = images(one)
    more = [SmoothLeakyReLU()] if changed == "layers" else []
    two = GaussianMixture(torch.ones(2), torch.ones(2, 24), torch.ones(2, 24))
    base = two.double() if changed == "base" else None
    other = ebflow.Flow(one.event_shape, [*one.layers, *more], base=base)
    at = other().at(x)
    expected = other.base.energy(at.latent) - sum(at._log_dets)
    torch.testing.assert_close(other().at(x).energy, expected)
    assert not torch.allclose(expected, one().at(x).energy)


def test_the_start_has_the_frequencies_of_levels():
    layer = PixelCNN((1, 2, 2), 3, counts=[60, 30, 10])
    p = layer.log_probs(torch.zeros(1, 1, 2, 2)).exp()
    torch.testing.assert_close(p, torch.tensor([0.6, 0.3, 0.1]).expand_as(p), atol=0.01, rtol=0)


@pytest.mark.usefixtures("single_precision")
def test_images_of_integers_are_fitted_with_exact_probabilities(tmp_path):
    x = torch.randint(0, 4, (300, 1, 1, 2), generator=seeded(1), dtype=torch.uint8)
    x[:, :, :, 1] = 3 - x[:, :, :, 0]  # the second pixel follows from the first
    fitted = ebflow.fit(x, levels=4, steps=300, lr=0.02, progress=False)
    assert fitted.spec["architecture"] == "pixelcnn"
    assert -fitted.log_prob(x).mean() < torch.tensor(4.0).log() + 0.05
    samples = fitted.sample((50,))
    assert (samples.sum(3) == 3).float().mean() > 0.95
    ebflow.save(fitted, tmp_path / "flow")
    torch.testing.assert_close(ebflow.load(tmp_path / "flow").log_prob(x), fitted.log_prob(x))


@pytest.mark.parametrize(("images", "options"), [
    (torch.randint(0, 4, (50, 1, 2, 2), dtype=torch.uint8), {"objective": "dsm", "levels": 4}),
    (torch.rand(50, 1, 2, 2), {}),
])  # fmt: skip
def test_integers_and_a_likelihood_are_needed(images, options):
    with pytest.raises(ValueError, match=r"values: .*images of integers, and a likelihood"):
        ebflow.fit(images, architecture="pixelcnn", steps=1, **options)


def dense_of(shape, *, dtype, **_):
    return ebflow.architectures.dense(shape, dtype=dtype)


def test_requests_that_pixels_do_not_have_get_another_flow():
    x = torch.randint(0, 4, (60, 1, 2, 2), dtype=torch.uint8)
    given = {"levels": 4, "steps": 1, "progress": False}
    base = ebflow.fit_mixture(torch.randn(20, 4), torch.randn(9, 4))
    for options in ({"normalize": "standardize"}, {"base": base}):
        flow = ebflow.fit(x, **given, **options)
        assert flow.spec["architecture"] == "convolutional"
    own = ebflow.fit(x, **given, architecture=dense_of)
    assert own.spec["architecture"] == "dense" and own.n_preprocessing > 2
    volume = x.view(60, 1, 1, 2, 2)
    assert ebflow.fit(volume, **given).spec["architecture"] == "dense"


def test_weights_decay_if_images_are_few():
    few, many = (recipe((1, 8, 8), rows=rows, levels=17) for rows in (FEW_ROWS - 1, FEW_ROWS))
    assert few.weight_decay > 0 == many.weight_decay


def test_noise_of_preprocessed_rows_spares_levels():
    x = torch.randint(0, 4, (60, 1, 2, 2), dtype=torch.uint8)
    flow = ebflow.fit(x, levels=4, steps=1, progress=False)
    assert not train._is_real(flow).any()


def test_frozen_weights_need_no_more_memory_with_gradients_on(monkeypatch):
    one, sizes = flow(), []
    x, _ = images(one)
    monkeypatch.setattr(pixels, "VALUES", 2 * 24 * 5)
    original = PixelCNN.log_probs
    monkeypatch.setattr(
        PixelCNN, "log_probs", lambda self, y: sizes.append(len(y)) or original(self, y)
    )
    one.log_prob(x)
    assert sizes == [2, 2, 2]
