"""Structured matrices: their matrices against dense ones, costs, and refusals."""

import pytest
import torch

from ebflow.architectures import STRUCTURES, structured
from ebflow.architectures.structured import factors
from ebflow.bijections import Butterfly, Dense, LowRank, Triangular, TriangularFactors

from .cases import rotation, seeded, stirred


def matrix_of(layer, size):
    return layer.linear(torch.eye(size)).mT


def test_triangular_factors_start_as_their_matrix():
    """Of a matrix whose factors need a permutation, with determinants of both signs."""
    for flip in (1.0, -1.0):
        weight = rotation(5)[[4, 0, 3, 1, 2]]
        weight[0] *= flip
        layer = TriangularFactors(weight)
        torch.testing.assert_close(matrix_of(layer, 5), weight)
        torch.testing.assert_close(layer.log_det(), torch.tensor(0.0), atol=1e-9, rtol=0)


def test_a_low_rank_starts_as_the_identity_and_stays_of_its_rank():
    layer = LowRank(6, 2, seeded())
    torch.testing.assert_close(matrix_of(layer, 6), torch.eye(6))
    moved = matrix_of(stirred(layer), 6) - layer.log_scale.exp().diag()
    assert int(torch.linalg.matrix_rank(moved)) == 2
    with pytest.raises(ValueError, match="rank: found 7, expected 1 to 6"):
        LowRank(6, 7)


def test_a_monarch_matrix_has_no_zero_and_few_weights():
    layer = Butterfly((2, 5), seeded(), bias=False)
    assert matrix_of(layer, 10).abs().min() > 0
    assert sum(p.numel() for p in layer.parameters()) == 10 * (2 + 5)
    product = matrix_of(layer, 10)
    torch.testing.assert_close(product @ product.mT, torch.eye(10), atol=1e-9, rtol=0)


def test_a_triangle_ignores_the_other_side():
    weight = rotation(4)
    for upper in (False, True):
        found = matrix_of(Triangular(weight, upper=upper), 4)
        assert torch.equal(found, weight.triu() if upper else weight.tril())


@pytest.mark.parametrize(("size", "expected"), [(10, (2, 5)), (16, (4, 4)), (7, (1, 7))])
def test_factors_are_next_to_the_root(size, expected):
    assert factors(size) == expected


# Weights of a matrix of ten elements
COUNTS = {"full": 100, "lower": 100, "upper": 100, "two_triangles": 200, "lu": 210,
          "monarch": 70, "low_rank": 50}  # fmt: skip


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_network_of_each_structure_is_a_density(structure):
    """Round trip, and log p against the determinant of the whole Jacobian."""
    flow = structured((10,), depth=2, structure=structure, generator=seeded())
    stirred(flow, 0.05)
    x = torch.randn(3, 10, generator=seeded(2))
    again = flow.from_latent(flow.to_latent(x))  # triangles of ones are badly conditioned
    torch.testing.assert_close(again, x, rtol=0, atol=1e-4)
    for row, log_prob in zip(x, flow.log_prob(x), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda z: flow.to_latent(z[None])[0], row)
        latent = flow.to_latent(row[None])[0]
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(latent).sum()
        torch.testing.assert_close(log_prob, normal + torch.linalg.slogdet(jacobian)[1])
    count = sum(p.numel() for p in flow.parameters()) - 2 * 20  # of ActNorm
    assert count == 3 * COUNTS[structure]


def test_structures_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="structure: found 'toeplitz'"):
        structured((3,), structure="toeplitz")


def test_full_is_a_dense_layer():
    assert isinstance(structured((3,), depth=1).layers[0], Dense)
