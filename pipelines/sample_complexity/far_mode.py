"""A bulk with a far mode: errors of a finite class, and of networks of one noise level."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebflow.complexity import errors, instances
from ebflow.complexity.denoisers import RectifiedDenoisers
from ebflow.complexity.instances import HALF, far_mode, stratified, worst_eta
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.sample_complexity.config import DELTAS, EPSILON, FiniteCell, NetworkCell
from pipelines.sample_complexity.training import TrainingSets, train

# The grid of m of the finite class: the first, the ratio, and the end over the inverse of η. The
# end is eight times as large as the m at which a far sample decides.
OF_CLASS = (2, 1.1, 4.0)

# The grid of m of networks. With R/σ in powers of 2, log 2/η, where half of the sets have a far
# sample, lies at the same place between two of its points.
OF_NETWORKS = (7, 2.0, 3.0)

# About the number of networks that train at once: their activations stay in the cache.
AT_ONCE = 40

TEST = 2000  # Test points of each component


def grid(of: tuple[int, float, float], ratio: float) -> list[int]:
    """Returns the m of a learner at an R/σ."""
    first, step, reach = of
    return geometric(first, reach / worst_eta(ratio, EPSILON), step)


def geometric(first: float, last: float, ratio: float) -> list[int]:
    """Returns integers from ``first`` to at least ``last``, in geometric progression."""
    count = int(np.ceil(np.log(last / first) / np.log(ratio))) + 1
    return sorted({round(first * ratio**k) for k in range(count)})


def finite(cell: FiniteCell) -> Iterator[dict[str, Any]]:
    """Yields the errors of what a finite class learns at every m, for each training set."""
    eta, sizes = worst_eta(cell.ratio, EPSILON), grid(OF_CLASS, cell.ratio)
    truth = far_mode(cell.ratio, eta)
    smooth = truth.smoothed(HALF)
    scores = [hypothesis.score for hypothesis in instances.far_class(smooth)]
    test = stratified(truth, TEST, generator=derive(cell.seed, "test"))
    exact = smooth.score(test.noisy)
    gaps = torch.stack([score(test.noisy) - exact for score in scores])
    of_each = errors.summary(HALF * gaps.norm(dim=-1), test, DELTAS)
    for index in cell.sets:
        noise = derive(cell.seed, "finite class", f"{cell.ratio:g}", index)
        clean, component = truth.sample_with_components(sizes[-1], generator=noise)
        z = normal(clean.shape, clean, noise)
        losses = instances.cumulative_losses(scores, clean + HALF * z, -z / HALF, sizes)
        chosen = instances.erm(losses, generator=noise)
        yield {
            "panel": "finite", "learner": "finite class", "ratio": cell.ratio, "size": 1,
            "eta": eta, "m": sizes, "seed": index,
            "n_far": component.cumsum(0)[torch.tensor(sizes) - 1],
            **{name: values[chosen] for name, values in of_each.items()},
        }  # fmt: skip


def networks(cell: NetworkCell) -> Iterator[dict[str, Any]]:
    """Yields the errors of networks at every m, a few training sets at a time."""
    sizes = grid(OF_NETWORKS, cell.ratio)
    count = max(1, AT_ONCE // len(sizes))
    for start in range(0, cell.count, count):
        yield _trained(cell, sizes, cell.sets[start : start + count])


def _trained(cell: NetworkCell, sizes: Sequence[int], indices: range) -> dict[str, Any]:
    """Returns the errors of networks that are trained at once, at every m of these sets."""
    eta = worst_eta(cell.ratio, EPSILON)
    truth = far_mode(cell.ratio, eta, size=cell.size, dtype=torch.float32)
    name = f"networks {cell.ratio:g} {cell.size}"

    def sample(index: int) -> tuple[Tensor, ...]:
        noise = derive(cell.seed, name, index)
        clean, component = truth.sample_with_components(sizes[-1], generator=noise)
        once = [normal(clean.shape, clean, noise)] if cell.noise == "once" else []
        return (clean, component > 0, *once)

    sets = TrainingSets.sampled(sample, indices, sizes)
    noise = derive(cell.seed, name, cell.noise, "networks", "train", indices[0])
    ensemble = RectifiedDenoisers(
        len(sets.owner), cell.size, radius=cell.ratio * HALF, width=cell.width,
        depth=cell.depth, generator=noise,
    )  # fmt: skip
    for _ in train(
        ensemble, sets, generator=noise, lengths=(cell.steps,), least=HALF, rows=cell.batch
    ):
        pass
    test = stratified(truth, TEST, generator=derive(cell.seed, "test"))
    gaps = ensemble.score(test.noisy, HALF) - truth.smoothed(HALF).score(test.noisy)
    return {
        "panel": "networks", "learner": f"networks, noise {cell.noise}",
        "ratio": cell.ratio, "size": cell.size, "width": cell.width, "depth": cell.depth,
        "eta": eta, "weights": ensemble.size, **sets.columns,
        **errors.summary(HALF * gaps.norm(dim=-1), test, DELTAS),
    }  # fmt: skip
