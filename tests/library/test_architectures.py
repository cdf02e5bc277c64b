"""Named flows: sizes, starts, and the specs that rebuild them."""

import pytest
import torch

from ebflow.architectures import ARCHITECTURES, convolutional, dense, structured
from ebflow.bijections import ActNorm, Convolution, Dense, SmoothLeakyReLU, Squeeze
from ebflow.checkpoint import rebuild

from . import reference
from .bijections.cases import seeded, stirred


def size(flow):
    return sum(p.numel() for p in flow.parameters())


@pytest.mark.parametrize(("shape", "parameters"), [((1, 28, 28), 26_796), ((3, 32, 32), 240_912)])
@pytest.mark.parametrize("padding", ["zero", "circular", "masked"])
def test_convolutional_nets_of_the_paper(shape, parameters, padding):
    assert size(convolutional(shape, padding=padding)) == parameters


@pytest.mark.parametrize(
    ("elements", "parameters"), [(784, 1_230_880), (3072, 18_880_512), (12288, 302_014_464)]
)
def test_dense_nets_of_the_paper(elements, parameters):
    """Two layers have 2 (D² + D) parameters, seen at a D that fits."""
    assert 2 * (elements**2 + elements) == parameters
    assert size(dense((1, 4, 7))) == 2 * (28**2 + 28)


def test_layers_of_a_convolutional_net():
    flow = convolutional((1, 8, 8), kernel_size=3, blocks=3, depth=2, padding="circular")
    kinds = [type(layer) for layer in flow.layers]
    conv, relu, squeeze = Convolution, SmoothLeakyReLU, Squeeze
    assert kinds == [
        conv, relu, conv, squeeze, relu, conv, relu, conv, squeeze, relu, conv, relu, conv,
    ]  # fmt: skip
    events = [layer.event_shape for layer in flow.layers if isinstance(layer, conv)]
    assert events == [s for s in ((1, 8, 8), (4, 4, 4), (16, 2, 2)) for _ in range(2)]
    assert all(layer.padding == "circular" for layer in flow.layers if isinstance(layer, conv))
    assert all(layer.residual for layer in flow.layers if isinstance(layer, relu))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_convolutions_start_as_the_identity(sign):
    flow = convolutional((2, 4, 4), blocks=1, depth=1, sign=sign, bias=0.5)
    x = torch.randn(3, 2, 4, 4, generator=seeded())
    assert torch.equal(flow(x), sign * x + 0.5)
    assert flow.log_normalizer() == 0


def test_noise_of_the_start_is_that_of_the_outputs():
    """K − I has k² C entries of variance noise² / (k² C), to 5 standard errors."""
    flow = convolutional((16, 4, 4), blocks=1, depth=1, sign=0.0, noise=0.3, generator=seeded())
    entries = flow.layers[0].weight.detach().flatten() * 7 * 4 / 0.3
    assert abs(entries.square().mean() - 1) < 5 * (2 / len(entries)) ** 0.5
    again = convolutional((16, 4, 4), blocks=1, depth=1, sign=0.0, noise=0.3, generator=seeded())
    assert torch.equal(again.layers[0].weight, flow.layers[0].weight)


def test_calibrated_images_start_with_standard_latents():
    """Mean 0 and variance 1 of every latent, to five standard errors of 100,000 draws."""
    flow = convolutional(
        (1, 2, 2), kernel_size=3, blocks=1, depth=3, residual=True, calibrated=True, sign=1.0
    )
    x = torch.randn(100_000, 1, 2, 2, generator=seeded())
    first, n = x, len(x) ** 0.5
    for layer in list(flow.layers)[:3]:
        first = layer(first)
    assert (first.mean(0).abs() < 5 / n).all() and ((first.var(0) - 1).abs() < 20 / n).all()


STRUCTURES = {"full": ["full"], "tril": ["tril"], "triu": ["triu"], "trilu": ["triu", "tril"]}
structures = pytest.mark.parametrize("structure", STRUCTURES)


@structures
def test_layers_of_the_multimodal_net(structure):
    flow = structured(structure=structure, depth=2)
    matrices = STRUCTURES[structure]
    block = [Dense] * len(matrices)
    kinds = [type(layer) for layer in flow.layers]
    assert kinds == [*block, SmoothLeakyReLU, ActNorm, *block, SmoothLeakyReLU, ActNorm, *block]
    found = [layer.structure for layer in flow.layers if isinstance(layer, Dense)]
    assert found == 3 * matrices
    assert size(structured(structure=structure)) == 11 * len(matrices) * 100 + 10 * 20


@structures
def test_start_of_the_multimodal_net(structure):
    first = structured(structure=structure, generator=seeded()).layers[0]
    torch.testing.assert_close(first.weight @ first.weight.mT, torch.eye(10))
    if structure == "trilu":
        second = structured(structure=structure).layers[1]
        assert torch.equal(second.effective_weight(), torch.ones(10, 10).tril())


@pytest.mark.parametrize("structure", ["tril", "triu"])
def test_triangles_make_a_triangular_flow(structure):
    flow = structured((4,), structure=structure, depth=3)
    J = reference.jacobian(flow, torch.randn(2, 4, generator=seeded()))
    assert torch.equal(J, getattr(torch, structure)(J))


def test_two_triangles_make_a_full_flow():
    flow = structured((4,), structure="trilu", depth=1)
    assert reference.jacobian(flow, torch.randn(2, 4, generator=seeded())).all()


NETS = {
    "dense": (dense, (4,), dict(depth=3, alpha=0.2, residual=True)),
    "convolutional": (convolutional, (1, 4, 4), dict(kernel_size=5, blocks=2, depth=1)),
    "circular": (convolutional, (1, 4, 4), dict(kernel_size=3, blocks=1, padding="circular")),
    "masked": (convolutional, (1, 4, 4), dict(kernel_size=3, padding="masked", residual=False)),
    "structured": (structured, (2, 2), dict(depth=2, structure="trilu", alpha=0.2)),
    "spectral": (convolutional, (1, 4, 4), dict(kernel_size=3, blocks=2, spectral_norm=True)),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spec_rebuilds_the_flow(name, dtype):
    build, shape, options = NETS[name]
    flow = stirred(build(shape, **options, generator=seeded(), dtype=dtype), 0.1).eval()
    spec = {**flow.spec, "dtype": str(dtype).removeprefix("torch.")}
    again = rebuild(spec).eval()
    again.load_state_dict(flow.state_dict())
    x = torch.randn(3, *shape, generator=seeded(1), dtype=dtype)
    assert torch.equal(again.log_prob(x), flow.log_prob(x)) and again.like.dtype == dtype


def test_building_leaves_the_global_random_state():
    before = torch.random.get_rng_state()
    for generator in (None, seeded()):
        convolutional((1, 4, 4), kernel_size=3, spectral_norm=True, generator=generator)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_architecture_names_itself():
    for name, build in ARCHITECTURES.items():
        options = {"hidden": 2} if name == "glow" else {}
        assert build((1, 4, 4), **options).spec["architecture"] == name


def test_normalising_what_is_calibrated_is_refused():
    with pytest.raises(ValueError, match="calibrated: found with spectral_norm"):
        convolutional((1, 4, 4), spectral_norm=True, calibrated=True)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="shape: found"):
        convolutional((1, 6, 6))
