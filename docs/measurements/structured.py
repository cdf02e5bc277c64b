"""Test NLL of flows with structured and arbitrary linear layers, after equal seconds of one core.

    OMP_NUM_THREADS=1 python docs/measurements/structured.py mnist.parquet --seconds 60

Every flow is three linear layers of D = 784 pixels, each with a learned spline of every pixel
behind it. It starts as the identity on standardized, or whitened, pixels. Structured layers have a
log-determinant that costs little, so their steps use the exact likelihood. Each learning rate gets
the seconds with the first seed; validation chooses one for all seeds. Adds each result to
``structured.json``, does not measure it again, prints a table, and draws
``docs/figures/structured.png``.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from mnist import SHAPE, Images, images
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

import ebflow
from ebflow import Flow
from ebflow.bijections import (
    Bijection,
    Butterfly,
    Convolution,
    Dense,
    LowRank,
    MonotoneSpline,
    Reshape,
    Structured,
    TriangularFactors,
)
from pipelines.reporting.style import FLOW, panels

FIGURE = Path(__file__).parents[1] / "figures" / "structured.png"
D = math.prod(SHAPE)
DEPTH, RANK, KERNEL = 3, 32, 7
RATES = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2)


class ByMatrix(Structured):
    """A layer whose transpose and inverse are those of its matrix."""

    def __init__(self) -> None:
        super().__init__(D)

    def matrix(self) -> Tensor:
        """Returns J with shape (D, D), by the products with all unit vectors."""
        return self.product(torch.eye(D).to(self.bias)).mT

    def adjoint(self, s: Tensor) -> Tensor:
        return s @ self.matrix()

    def solution(self, z: Tensor) -> Tensor:
        return torch.linalg.solve(self.matrix(), z.mT).mT


class Circulant(ByMatrix):
    """Circular convolutions and diagonals in turn, by FFT: Huang et al. (2016), arXiv:1510.07784.

    Arguments:
        pairs: The number of convolutions.
    """

    def __init__(self, pairs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(F.one_hot(torch.tensor(0), D).float().repeat(pairs, 1))
        self.log_scale = nn.Parameter(torch.zeros(pairs, D))

    def product(self, x: Tensor) -> Tensor:
        for kernel, log_scale in zip(self.kernel, self.log_scale, strict=True):
            x = torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(kernel), n=D) * log_scale.exp()
        return x

    def log_det(self) -> Tensor:
        return self.log_scale.sum() + torch.fft.fft(self.kernel).abs().log().sum()


class Emerging(ByMatrix):
    """Two convolutions that each see pixels on one side only.

    Emerging convolutions for generative normalizing flows (Hoogeboom, van den Berg, Welling 2019),
    arXiv:1901.11137.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = (nn.Parameter(torch.zeros(KERNEL**2)) for _ in range(2))
        self.log_scale = nn.Parameter(torch.zeros(2))

    def product(self, x: Tensor) -> Tensor:
        places = torch.arange(KERNEL**2)
        for kernel, kept, log_scale in (
            (self.before, places < KERNEL**2 // 2, self.log_scale[0]),
            (self.after, places > KERNEL**2 // 2, self.log_scale[1]),
        ):
            masked = torch.where(places == KERNEL**2 // 2, log_scale.exp(), kernel * kept)
            weight = masked.view(1, 1, KERNEL, KERNEL)
            x = F.conv2d(x.view(-1, *SHAPE), weight, padding=KERNEL // 2).view(-1, D)
        return x

    def log_det(self) -> Tensor:
        return D * self.log_scale.sum()


def matrix() -> Iterator[Bijection]:
    """Yields an arbitrary matrix that starts as the identity."""
    yield Dense(torch.eye(D), torch.zeros(D))


def convolution() -> Iterator[Bijection]:
    """Yields an arbitrary convolution with zero padding that starts as the identity."""
    kernel = nn.init.dirac_(torch.empty(1, 1, KERNEL, KERNEL))
    yield from (Reshape((D,), SHAPE), Convolution(kernel, torch.zeros(1), SHAPE[1:]))
    yield Reshape(SHAPE, (D,))


def structured(
    kind: Callable[..., Structured],
    *arguments: Any,  # noqa: ANN401
) -> Callable[[], Iterator[Bijection]]:
    """Returns a function that yields a layer with a structured matrix, at first the identity."""
    return lambda: iter([kind(*arguments)])


class Method(NamedTuple):
    """A kind of linear layer, and the objective that trains it."""

    layer: Callable[[], Iterator[Bijection]]
    objective: str = "ml"


METHODS = {
    "arbitrary matrix, lazy normalizer": Method(matrix, "lazy_ml"),
    "arbitrary matrix, relative gradient": Method(matrix, "relative_ml"),
    "arbitrary matrix, exact likelihood": Method(matrix),
    "triangular factors (LU)": Method(structured(lambda: TriangularFactors(torch.eye(D)))),
    f"diagonal + rank {RANK}": Method(structured(LowRank, D, RANK)),
    "butterfly, radices 2 and 7": Method(structured(Butterfly, (2, 2, 2, 2, 7, 7))),
    "Monarch, 28 × 28": Method(structured(Butterfly, (28, 28))),
    "circulant and diagonal, twice": Method(structured(Circulant, 2)),
    "emerging 7×7 convolutions": Method(structured(Emerging)),
    "arbitrary 7×7 convolution, lazy normalizer": Method(convolution, "lazy_ml"),
}


def measure(
    data: Images, method: Method, normalize: str, seconds: float, rate: float, seed: int
) -> dict:
    """Returns the mean NLL of validation and test images in nats, the steps, and parameters."""
    layers = [part for _ in range(DEPTH) for part in (*method.layer(), MonotoneSpline((D,)))]
    flow = Flow(SHAPE, [Reshape(SHAPE, (D,)), *layers])
    count = sum(p.numel() for p in flow.parameters())
    fitted = ebflow.fit(data.train, flow=flow, validation=(data.validation,), lr=rate, seed=seed,
                        normalize=normalize, objective=method.objective, batch_size=100,
                        max_seconds=seconds, patience=None)  # fmt: skip
    chosen_by, test = (-fitted.log_prob(rows).double() for rows in data[1:])
    return {
        "chosen_by": float(chosen_by.mean()),
        "nll": float(test.mean()),
        "error": float(test.std()) / len(test) ** 0.5,
        "steps": fitted.report.steps,
        "parameters": count,
    }


Results = Mapping[str, Mapping[str, float]]
"""The result of a method, a learning rate and a seed, by ``key``."""


def key(method: str, rate: float, seed: int) -> str:
    """Returns the name of a result."""
    return f"{method}, {rate:g}, {seed}"


def best_rate(results: Results, method: str, rates: Sequence[float], seed: int) -> float:
    """Returns the learning rate that validation chooses with one seed."""
    return min(rates, key=lambda rate: results[key(method, rate, seed)]["chosen_by"])


def row(found: Sequence[Mapping[str, float]], rate: float) -> str:
    """Returns the last cells of a table's row: means over seeds, and a 95 % interval."""
    nll, steps = ([one[name] for one in found] for name in ("nll", "steps"))
    error = found[0]["error"]
    if len(found) > 1:
        error = stats.t.ppf(0.975, len(nll) - 1) * stdev(nll) / len(nll) ** 0.5
    parameters = f"{found[0]['parameters']:,}"
    return f"{parameters} | {rate:g} | {mean(steps):,.0f} | {mean(nll):.1f} ± {error:.1f}"


def draw(found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Draws the test NLL of every method and seed."""
    drawn, axis = panels(width=7, height=3.4)
    for method, seeds in found.items():
        axis.plot([one["nll"] for one in seeds], [method] * len(seeds), "o", color=FLOW, alpha=0.6)
    axis.invert_yaxis()
    axis.set(xlabel="test NLL (nats an image)")
    drawn.savefig(FIGURE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="MNIST as a Parquet file")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--normalize", default="standardize", choices=("standardize", "whiten"))
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--output", type=Path, default=Path("structured.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = images(options.source)
    results = json.loads(options.output.read_text()) if options.output.exists() else {}

    def measured(method: str, rate: float, seed: int) -> Mapping[str, float]:
        name = key(method, rate, seed)
        if name not in results:
            settings = options.normalize, options.seconds, rate, seed
            results[name] = measure(data, METHODS[method], *settings)
            options.output.write_text(json.dumps(results, indent=1))
            print(f"{name}: {results[name]}", flush=True)
        return results[name]

    first = options.seeds[0]
    for method, rate in product(options.methods, options.rates):
        measured(method, rate, first)
    rates = {name: best_rate(results, name, options.rates, first) for name in options.methods}
    found = {name: [measured(name, rate, seed) for seed in options.seeds]
             for name, rate in rates.items()}  # fmt: skip
    print("| linear layer | objective | parameters | rate | steps | test NLL |")
    print("|---" * 6 + "|")
    for name in options.methods:
        print(f"| {name} | `{METHODS[name].objective}` | {row(found[name], rates[name])} |")
    if options.normalize == "standardize":
        draw(found)
