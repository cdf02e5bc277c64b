"""Flows of triangular matrices: sizes, starts, triangles, and the specification."""

import pytest
import torch

from ebflow.bijections import ActNorm, Dense, SmoothLeakyReLU
from ebflow.checkpoint import rebuild
from pipelines.training.architectures import structured
from tests.library import reference
from tests.library.bijections.cases import seeded, stirred
from tests.library.conftest import double_precision  # noqa: F401


def size(flow):
    return sum(p.numel() for p in flow.parameters())


STRUCTURES = {"full": ["full"], "tril": ["tril"], "triu": ["triu"], "trilu": ["triu", "tril"]}
PARTS = {"full": torch.clone, "tril": torch.tril, "triu": torch.triu, "trilu": torch.triu}
structures = pytest.mark.parametrize("structure", STRUCTURES)


@structures
def test_layers_of_the_multimodal_net(structure):
    flow = structured(structure=structure, depth=2)
    matrices = STRUCTURES[structure]
    block = [Dense] * len(matrices)
    kinds = [*block, SmoothLeakyReLU, ActNorm, *block, SmoothLeakyReLU, ActNorm, *block]
    assert all(map(isinstance, flow.layers, kinds)) and len(flow.layers) == len(kinds)
    assert size(structured(structure=structure)) == 11 * len(matrices) * 100 + 10 * 20


@structures
def test_start_of_the_multimodal_net(structure):
    first = structured(structure=structure, generator=seeded()).layers[0]
    whole = structured(generator=seeded()).layers[0].weight
    torch.testing.assert_close(whole @ whole.mT, torch.eye(10))
    assert torch.equal(first.weight, PARTS[structure](whole))
    if structure == "trilu":
        second = structured(structure=structure).layers[1]
        assert torch.equal(second.weight, torch.ones(10, 10).tril())


@pytest.mark.parametrize("structure", ["tril", "triu"])
def test_triangles_make_a_triangular_flow(structure):
    flow = structured((4,), structure=structure, depth=3)
    J = reference.jacobian(flow, torch.randn(2, 4, generator=seeded()))
    assert torch.equal(J, getattr(torch, structure)(J))


def test_two_triangles_make_a_full_flow():
    flow = structured((4,), structure="trilu", depth=1)
    assert reference.jacobian(flow, torch.randn(2, 4, generator=seeded())).all()


def test_a_spec_rebuilds_the_flow():
    flow = stirred(structured((2, 2), depth=2, structure="trilu", alpha=0.2, context=2), 0.1)
    again = rebuild({**flow.spec, "dtype": "float64"})
    again.load_state_dict(flow.state_dict())
    x, c = (torch.randn(3, *shape, generator=seeded(1)).double() for shape in ((2, 2), (2,)))
    flow, again = flow.double().eval(), again.eval()
    assert torch.equal(again.log_prob(x, context=c), flow.log_prob(x, context=c))
