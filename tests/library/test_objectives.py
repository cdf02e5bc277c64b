"""Value and parameter gradient of every objective against slow references; unbiasedness."""

from functools import cache, partial

import pytest
import torch

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.bijections import Dense
from ebflow.bijections.base import products
from ebflow.density import EnergyFunction
from ebflow.objectives import draw_directions
from ebflow.randomness import RowGenerator, normal, rademacher
from ebflow.randomness import generator as derive

from . import reference
from .bijections.cases import seeded
from .flows import FLOWS, at, brute, contexts, net

CLOSE = dict(rtol=1e-8, atol=1e-9)
SIGMA, EPSILON, STEP = 0.4, 0.2, 0.1

NAMES = ("dense", "every kind of layer", "zero", "coupling, elu", "mixture")
GIVEN = [name for name in FLOWS if name.endswith("given")]
hessian = cache(reference.hessian)  # Of one log-density at the same points it is computed once


def signs(x, slices):
    """The slices of ``ssm``: the first dimension drawn is the batch."""
    return rademacher((len(x), slices, *x.shape[1:]), x, derive(0)).transpose(0, 1).flatten(2)


def shifted(x):
    """The noise of ``dsm``."""
    noise = normal(x.shape, x, derive(0))
    return x + SIGMA * noise, noise.flatten(1)


def dsm(log_p, x):
    y, noise = shifted(x)
    residual = reference.score(log_p, y)[1].flatten(1) + noise / SIGMA
    return residual.square().sum(1) / 2


def dsm_pairs(log_p, x):
    """The mean over both signs of the noise, one after the other."""
    _, noise = shifted(x)
    residuals = [
        reference.score(log_p, x + sign * SIGMA * noise.view(x.shape))[1].flatten(1)
        + sign * noise / SIGMA
        for sign in (1, -1)
    ]
    return sum(residual.square().sum(1) for residual in residuals) / 4


def exact_sm(log_p, x):
    s, h = hessian(log_p, x)
    return s.square().sum(1) / 2 + h.diagonal(dim1=1, dim2=2).sum(1)


def taylor_sm(log_p, x, slices=1, kind="rademacher", sides=1, linear=1.0):
    """By one slice after the other; ``linear`` is the coefficient of the control variate."""
    s = reference.score(log_p, x)[1]
    rows = []
    for u in draw_directions(kind, slices, x, derive(0)):
        rise = log_p(x + STEP * u) - log_p(x)
        if sides == 2:
            rows.append((rise + log_p(x - STEP * u) - log_p(x)) / STEP**2)
        else:
            rows.append(2 * (rise - linear * STEP * reference.total(s * u)) / STEP**2)
    return reference.total(s * s) / 2 + torch.stack(rows).mean(0)


def ssm(log_p, x, slices=1, kind=None):
    v = draw_directions(kind, slices, x, derive(0)).flatten(2) if kind else signs(x, slices)
    s, h = hessian(log_p, x)
    slope, bend = torch.einsum("kbi,bi->kb", v, s), torch.einsum("kbi,bij,kbj->kb", v, h, v)
    return (slope.square() / 2 + bend).mean(0)


def ssm_vr(log_p, x, slices=1, kind=None):
    v = draw_directions(kind, slices, x, derive(0)).flatten(2) if kind else signs(x, slices)
    s, h = hessian(log_p, x)
    return s.square().sum(1) / 2 + torch.einsum("kbi,bij,kbj->kb", v, h, v).mean(0)


def fd_ssm(log_p, x):
    v = normal(x.shape, x, derive(0)).flatten(1)
    v = (EPSILON * v / v.norm(dim=1, keepdim=True)).view(x.shape)
    up, here, down = (-log_p(y) for y in (x + v, x, x - v))
    size = x[0].numel()
    return size / EPSILON**2 * ((up - down).square() / 8 + 2 * here - up - down)


REFERENCES = {
    "ml": (objectives.ml, lambda log_p, x: -log_p(x)),
    "dsm": (partial(objectives.dsm, sigma=SIGMA), dsm),
    "dsm, antithetic": (partial(objectives.dsm, sigma=SIGMA, antithetic=True), dsm_pairs),
    "exact_sm": (objectives.exact_sm, exact_sm),
    "ssm": (objectives.ssm, ssm),
    "ssm, 3 slices": (partial(objectives.ssm, slices=3), partial(ssm, slices=3)),
    "ssm_vr": (objectives.ssm_vr, ssm_vr),
    "ssm_vr, 3 slices": (partial(objectives.ssm_vr, slices=3), partial(ssm_vr, slices=3)),
    "ssm, orthogonal": (partial(objectives.ssm, slices=2, directions="orthogonal"),
        partial(ssm, slices=2, kind="orthogonal")),
    "ssm_vr, orthogonal": (partial(objectives.ssm_vr, slices=2, directions="orthogonal"),
        partial(ssm_vr, slices=2, kind="orthogonal")),
    "fd_ssm": (partial(objectives.fd_ssm, epsilon=EPSILON), fd_ssm),
    "taylor_sm": (partial(objectives.taylor_sm, step=STEP), taylor_sm),
    "taylor_sm, 2 slices": (partial(objectives.taylor_sm, step=STEP, slices=2),
        partial(taylor_sm, slices=2)),
    "taylor_sm, one-sided": (
        partial(objectives.taylor_sm, step=STEP, estimator="taylor", directions="gaussian"),
        partial(taylor_sm, kind="gaussian", linear=0.0)),
    "taylor_sm, two-sided": (
        partial(objectives.taylor_sm, step=STEP, estimator="two_sided", slices=2,
                directions="sphere"),
        partial(taylor_sm, kind="sphere", slices=2, sides=2)),
}  # fmt: skip
references = pytest.mark.parametrize("objective", REFERENCES)


def compare(flow, found, expected):
    """Compares the losses of samples, and the parameter gradients of an uneven sum of them."""
    torch.testing.assert_close(found, expected, **CLOSE)
    weights = torch.linspace(0.5, 2, len(found))
    parameters = [p for p in flow.parameters() if p.requires_grad]
    names = [n for n, p in flow.named_parameters() if p.requires_grad]
    pairs = (reference.gradients((weights * t).sum(), parameters) for t in (found, expected))
    for name, a, b in zip(names, *pairs, strict=True):
        torch.testing.assert_close(a, b, **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@cache
def shared(name):
    """Returns a flow, its log-density by brute force, and points."""
    flow = FLOWS[name]()
    return flow, brute(flow()), at(flow)


@references
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient(name, objective):
    (flow, log_p, x), (function, slow) = shared(name), REFERENCES[objective]
    found = function(flow, x, generator=derive(0))
    assert found.shape == (len(x),)
    compare(flow, found, slow(log_p, x))


ONE_EACH = (
    "ml", "dsm", "dsm, antithetic", "exact_sm", "ssm", "ssm_vr, 3 slices", "fd_ssm",
    "taylor_sm, 2 slices",
)  # fmt: skip


@pytest.mark.parametrize("objective", ONE_EACH)
@pytest.mark.parametrize("name", ["dense, given", "coupling, given", "glow, given"])
def test_value_and_gradient_given_contexts(name, objective):
    """Every row its own, also where an objective evaluates several copies of the batch."""
    flow, (function, slow) = FLOWS[name](), REFERENCES[objective]
    x, c = at(flow), contexts(flow)
    expected = slow(brute(flow(c)), x)
    compare(flow, function(flow(c), x, generator=derive(0)), expected)


@pytest.mark.parametrize("name", GIVEN)
def test_other_likelihoods_given_contexts(name):
    """lazy_ml is −log p at a refresh; sml is E(x) − E(x̃), x̃ drawn given each row's context."""
    flow = FLOWS[name]()
    x, density = at(flow), flow(contexts(flow))
    anchor = Anchor(flow)
    anchor.follow(0)
    exact = -brute(density)(x)
    compare(flow, objectives.lazy_ml(density, x, generator=derive(0), anchor=anchor), exact)
    drawn = density.sample((), generator=derive(0))
    found = objectives.sml(density, x, generator=derive(0))
    assert drawn.shape == x.shape
    compare(flow, found, density.energy(x) - density.energy(drawn))
    relative = objectives.relative_ml(density, x, generator=derive(0))
    dense = [layer.weight for layer in flow.layers if isinstance(layer, Dense)]
    parameters = [p for p in flow.parameters() if all(p is not weight for weight in dense)]
    pairs = (reference.gradients(t.sum(), parameters) for t in (relative, exact))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("objective", [o for o in REFERENCES if o != "ml"])
def test_any_log_density_will_do(objective):
    """The same objectives on a density that is no flow: a quartic with a trainable precision."""
    precision = torch.nn.Parameter(torch.tensor([1.0, 0.5, 2.0]))

    def log_p(x):
        return -(precision * x**2).sum(1) / 2 - (x**4).sum(1) / 4 + torch.sin(x.sum(1))

    x = torch.randn(5, 3, generator=seeded())
    function, slow = REFERENCES[objective]
    found, expected = (
        function(EnergyFunction(lambda x: -log_p(x)), x, generator=derive(0)),
        slow(log_p, x),
    )
    torch.testing.assert_close(found, expected, **CLOSE)
    for a, b in zip(
        *(torch.autograd.grad(t.sum(), [precision]) for t in (found, expected)), strict=True
    ):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("name", NAMES[:3])
def test_relative_ml_is_the_likelihood_in_relative_geometry(name):
    flow = FLOWS[name]()
    x = at(flow)
    relative = objectives.relative_ml(flow, x, generator=derive(0))
    exact = -brute(flow())(x)
    parameters = dict(flow.named_parameters())
    found = reference.gradients(relative.mean(), list(parameters.values()))
    expected = reference.gradients(exact.mean(), list(parameters.values()))
    for (path, p), a, b in zip(parameters.items(), found, expected, strict=True):
        owner = flow.get_submodule(path.rpartition(".")[0])
        weight = isinstance(owner, Dense) and path.endswith("weight")
        b = b @ p.detach().mT @ p.detach() if weight else b
        torch.testing.assert_close(a, b, **CLOSE, msg=lambda m, n=path: f"{n}: {m}")


def test_sml_has_the_likelihoods_gradient_on_average():
    """A z-test of every parameter, 100 means of 200 draws, false-alarm rate 1e-3 in all."""
    flow = net((3,), depth=2)
    x = at(flow, batch=200)
    parameters = list(flow.parameters())
    draws = [
        torch.cat([g.flatten() for g in gradient])
        for gradient in (
            torch.autograd.grad(objectives.sml(flow, x, generator=seeded(k)).mean(), parameters)
            for k in range(100)
        )
    ]
    exact = torch.autograd.grad(-flow.log_prob(x).mean(), parameters)
    z = z_scores(torch.stack(draws), torch.cat([g.flatten() for g in exact]))
    assert z.abs().max() < reference.two_sided(1e-3, z.numel()) * 1.05, z


TAYLOR = partial(objectives.taylor_sm, step=0.02)
SLICED = {
    "taylor_sm": TAYLOR,
    "taylor_sm, one-sided": partial(TAYLOR, estimator="taylor", directions="gaussian"),
    "taylor_sm, two-sided": partial(TAYLOR, estimator="two_sided", directions="sphere"),
    "ssm, orthogonal": partial(objectives.ssm, slices=3, directions="orthogonal"),
    "ssm_vr, gaussian": partial(objectives.ssm_vr, directions="gaussian"),
    "ssm": objectives.ssm,
    "ssm, 2 slices": partial(objectives.ssm, slices=2),
    "ssm_vr": objectives.ssm_vr,
    "fd_ssm": partial(objectives.fd_ssm, epsilon=1e-3),
}


@pytest.mark.parametrize("objective", SLICED)
def test_sliced_objectives_are_unbiased(objective):
    """A z-test of 5 points, 20,000 draws each, at a false-alarm rate of 1e-3 in all.

    Differences at ε = 1e-3 and σ = 0.02 have biases of 1e-6 and 1e-4, far below the errors.
    """
    flow = net((4,), depth=2)
    x = at(flow)
    exact = objectives.exact_sm(flow, x, generator=derive(0))
    with torch.no_grad():
        many = x.repeat_interleave(20_000, 0)
        draws = SLICED[objective](flow, many, generator=derive(0)).view(5, -1)
    z = z_scores(draws.mT, exact.detach())
    assert z.abs().max() < reference.two_sided(1e-3, 5), z


EXACT = {
    "ssm": (objectives.ssm, 1e-10),
    "ssm_vr": (objectives.ssm_vr, 1e-10),
    "taylor_sm": (partial(objectives.taylor_sm, step=1e-3), 1e-4),
    "taylor_sm, one-sided": (partial(objectives.taylor_sm, step=1e-3, estimator="taylor"), 1e-4),
    "taylor_sm, two-sided": (
        partial(objectives.taylor_sm, step=1e-3, estimator="two_sided"),
        1e-4,
    ),
}


@pytest.mark.parametrize("objective", EXACT)
def test_the_mean_over_all_signs_is_exact_score_matching(objective, monkeypatch):
    """All 2⁴ vectors of signs in place of random ones; differences up to O(σ²)."""
    every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    monkeypatch.setitem(
        objectives.DIRECTIONS, "rademacher",
        lambda shape, like, generator: every.to(like).expand(len(like), -1, -1),
    )  # fmt: skip
    flow, (function, error) = net((4,), depth=2, bias=0.3), EXACT[objective]
    x = at(flow)
    found = function(flow, x, generator=derive(0), slices=len(every))
    expected = objectives.exact_sm(flow, x, generator=derive(0))
    torch.testing.assert_close(found, expected, rtol=0, atol=error)


@pytest.mark.parametrize("objective", ["ssm", "ssm_vr"])
def test_as_many_orthogonal_directions_as_dimensions_have_the_exact_trace(objective):
    flow = net((4,), depth=3)
    x, function = at(flow), objectives.OBJECTIVES[objective]
    found = function(flow, x, generator=derive(0), slices=4, directions="orthogonal")
    torch.testing.assert_close(found, objectives.exact_sm(flow, x, generator=derive(0)))


def mean_loss(function, flow, x, seed, repeats=20_000):
    """Returns the mean loss at every point, and its standard error."""
    with torch.no_grad():
        many = x.repeat_interleave(repeats, 0)
        losses = function(flow, many, generator=derive(seed)).view(len(x), -1)
    return losses.mean(1), losses.std(1) / repeats**0.5


def test_antithetic_noise_has_the_same_mean_and_less_variance():
    """Of the difference of two flows: ½‖n‖²/σ², alike in both, has no part in a gradient.

    A z-test of the difference at 5 points, at a false-alarm rate of 1e-3 in all.
    """
    one, other = net((4,), depth=2), net((4,), depth=2, bias=0.5)
    x = at(one)

    def difference(flow, x, *, generator, antithetic):
        state = generator.get_state()
        first = objectives.dsm(flow, x, generator=generator, sigma=0.1, antithetic=antithetic)
        generator.set_state(state)
        second = objectives.dsm(other, x, generator=generator, sigma=0.1, antithetic=antithetic)
        return first - second

    plain = mean_loss(partial(difference, antithetic=False), one, x, seed=0)
    pairs = mean_loss(partial(difference, antithetic=True), one, x, seed=1)
    z = (plain[0] - pairs[0]) / (plain[1].square() + pairs[1].square()).sqrt()
    assert z.abs().max() < reference.two_sided(1e-3, 5), z
    assert (pairs[1].square() < 0.1 * plain[1].square()).all()


def test_unknown_estimators_are_refused():
    flow = net((4,))
    with pytest.raises(ValueError, match="estimator: found 'hutchinson', expected one of taylor"):
        objectives.taylor_sm(flow, at(flow), generator=derive(0), estimator="hutchinson")


def test_slicing_only_the_trace_has_less_variance_at_the_models_own_samples():
    """On average over the model; at a single point it may be the other way round."""
    flow = net((4,), depth=2)
    with torch.no_grad():
        x = flow.sample(2000, generator=seeded()).repeat_interleave(50, 0)
        plain, reduced = (
            f(flow, x, generator=derive(0)).view(2000, 50).var(1).mean()
            for f in (objectives.ssm, objectives.ssm_vr)
        )
    assert reduced < 0.7 * plain


def test_finite_difference_bias_is_quadratic_in_epsilon():
    """In each direction the limit is D (½ (v·s)² + v·H·v); halving ε quarters the distance."""
    flow = net((4,), depth=2)
    x = at(flow, batch=50)
    v = normal(x.shape, x, derive(0))
    v = v / v.norm(dim=1, keepdim=True)
    slope, bend = (t[0] for t in flow.directional(x, v[None]))
    limit = 4 * (slope**2 / 2 + bend)
    error = [
        (objectives.fd_ssm(flow, x, generator=derive(0), epsilon=e) - limit).detach()
        for e in (0.1, 0.05, 0.025)
    ]
    assert error[0].abs().max() > 1e-4
    for coarse, fine in zip(error, error[1:], strict=False):
        large = coarse.abs() > coarse.abs().median()
        torch.testing.assert_close(
            (coarse / fine)[large], torch.full_like(fine[large], 4.0), rtol=0.05, atol=0
        )


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan")])
def test_noise_must_be_positive(sigma):
    flow = net((4,))
    with pytest.raises(ValueError, match="sigma: found"):
        objectives.dsm(flow, at(flow), generator=derive(0), sigma=sigma)


@pytest.mark.parametrize("objective", ["fd_ssm", "taylor_sm"])
def test_differences_of_energies_need_full_precision(objective, single_precision):
    flow = net((4,))
    x, function = at(flow), objectives.OBJECTIVES[objective]
    function(flow, x, generator=derive(0))
    with products("high"), pytest.raises(ValueError, match="precision: found high"):
        function(flow, x, generator=derive(0))


@pytest.mark.parametrize("objective", [*REFERENCES, "sml"])
def test_parts_draw_the_rows_of_the_whole_batch(objective):
    flow, functions = net((4,)), {"sml": (objectives.sml,), **REFERENCES}
    function, x = functions[objective][0], at(net((4,)), batch=6)
    whole = function(flow, x, generator=RowGenerator(0, "a"))
    parts = [
        function(flow, x[rows], generator=RowGenerator(0, "a", first=rows.start))
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


def test_every_objective_is_tested():
    named = {name.split(",")[0] for name in REFERENCES} | {"relative_ml", "lazy_ml", "sml"}
    assert named == set(objectives.OBJECTIVES)


def z_scores(draws, expected):
    """Returns z-scores of the means of draws with shape (N, P)."""
    return (draws.mean(0) - expected) / (draws.std(0) / len(draws) ** 0.5)
