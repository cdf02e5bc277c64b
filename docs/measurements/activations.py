"""Learned activations between two dense layers, on digits, in equal time of one core.

    OMP_NUM_THREADS=1 python docs/measurements/activations.py --seconds 10 --seeds 5

Rivals of the spline are smooth on the whole line and have closed-form inverses: cubic rational
functions, and sinh and cubic functions of a shifted inverse (Gerdes and Cheng, 2026, Analytic
Bijections for Smooth and Interpretable Normalizing Flows, arXiv:2601.10774). Several of them, with
locations of their own, follow each dense layer, so that all have about as many parameters.
Validation rows choose each activation's learning rate. Prints a table of test NLL in nats.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

import ebflow
from ebflow.bijections import Dense, Elementwise, MonotoneSpline, SmoothLeakyReLU

SIZE = 64  # Pixels of a digit
TRAINING, VALIDATION = 1297, 250  # Images; the other 250 are for testing
RATES = (1.5e-3, 5e-3)
FAR = 30.0  # Beyond it, sinh is an exponential to the precision of float32


class Located(Elementwise):
    """An activation around a learned location, which starts as the identity."""

    def __init__(self, start: float, *names: str) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.full((SIZE,), start))
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.zeros(SIZE)))

    def local(self, x: Tensor, order: int) -> Tensor:
        return x - self.place


class CubicRational(Located):
    """Creates f(x) = x + α x / (1 + β x²) with α in (−1, 8): a step, or a bump of the slope."""

    def __init__(self, start: float) -> None:
        super().__init__(start, "a", "b")

    def coefficients(self) -> tuple[Tensor, Tensor]:
        return 9 * torch.sigmoid(self.a - math.log(8)) - 1, self.b.exp()

    def value(self, at: Tensor) -> Tensor:
        alpha, beta = self.coefficients()
        return at + self.place + alpha * at / (1 + beta * at**2)

    def derivatives(self, at: Tensor, order: int) -> tuple[Tensor, ...]:
        alpha, beta = self.coefficients()
        square = beta * at**2
        return (1 + alpha * (1 - square) / (1 + square) ** 2,)

    def inverse(self, y: Tensor) -> Tensor:
        alpha, beta = self.coefficients()
        y = y - self.place
        p = (1 + alpha) / beta - y**2 / 3
        q = -2 * y**3 / 27 + y * (1 + alpha) / (3 * beta) - y / beta
        return real_root(p, q) + y / 3 + self.place


class CubicConjugate(Located):
    """Creates f(x) = g⁻¹(g(x) + β) with g(x) = x + b x³: a shift that vanishes far away."""

    def __init__(self, start: float) -> None:
        super().__init__(start, "shift", "b")

    def value(self, at: Tensor) -> Tensor:
        return self.shifted(at, self.shift) + self.place

    def derivatives(self, at: Tensor, order: int) -> tuple[Tensor, ...]:
        b = self.b.exp()
        return ((1 + 3 * b * at**2) / (1 + 3 * b * self.shifted(at, self.shift) ** 2),)

    def inverse(self, y: Tensor) -> Tensor:
        return self.shifted(y - self.place, -self.shift) + self.place

    def shifted(self, x: Tensor, by: Tensor) -> Tensor:
        b = self.b.exp()
        return real_root(1 / b, -(x + b * x**3 + by) / b)


class SinhConjugate(Located):
    """Creates f(x) = a asinh(e^μ (e^ν sinh(x / a) + β)): it shifts either side by its own."""

    def __init__(self, start: float) -> None:
        super().__init__(start, "shift", "outer", "inner", "width")

    def value(self, at: Tensor) -> Tensor:
        return self.bent(at, self.outer, self.inner, self.shift) + self.place

    def derivatives(self, at: Tensor, order: int) -> tuple[Tensor, ...]:
        u = (at / self.width.exp()).clamp(-FAR, FAR)
        z = self.outer.exp() * (self.inner.exp() * u.sinh() + self.shift)
        return ((self.outer + self.inner).exp() * u.cosh() / (1 + z**2).sqrt(),)

    def inverse(self, y: Tensor) -> Tensor:
        return self.bent(y - self.place, -self.inner, -self.outer, -self.shift) + self.place

    def bent(self, x: Tensor, outer: Tensor, inner: Tensor, shift: Tensor) -> Tensor:
        a = self.width.exp()
        u = (x / a).clamp(-FAR, FAR)
        return a * (outer.exp() * (inner.exp() * u.sinh() + shift)).asinh() + (x - a * u)


def real_root(p: Tensor, q: Tensor) -> Tensor:
    """Returns the root of t³ + p t + q for an increasing cubic, or one with a single real root."""
    r = (p.abs() / 3).clamp_min(1e-20).sqrt()
    ratio = (q.abs() / (2 * r**3)).clamp_max(1e12)
    up, down = (ratio.asinh() / 3).sinh(), (ratio.clamp_min(1).acosh() / 3).cosh()
    return -2 * q.sign() * r * torch.where(p > 0, up, down)


def several(make: Callable[[float], Elementwise], count: int) -> Callable[[], list[Elementwise]]:
    """Returns a function that makes ``count`` activations with locations from −1.5 to 1.5."""
    return lambda: [make(float(start)) for start in np.linspace(-1.5, 1.5, count)]


ACTIVATIONS: dict[str, Callable[[], list[Elementwise]]] = {
    "spline of 16 cells": lambda: [MonotoneSpline((SIZE,))],
    "4 cubic rational functions": several(CubicRational, 4),
    "4 sinh conjugates": several(SinhConjugate, 4),
    "4 cubic conjugates": several(CubicConjugate, 4),
    "smooth leaky ReLU, centred": lambda: [SmoothLeakyReLU(centred=True)],
}


def trained(
    name: str, rate: float, seed: int, parts: tuple[Tensor, ...], **limit: float
) -> ebflow.Flow:
    """Trains two dense layers, each with its activations."""
    layers = []
    for _ in range(2):
        layers += [Dense(torch.eye(SIZE), torch.zeros(SIZE)), *ACTIVATIONS[name]()]
    return ebflow.fit(
        parts[0], validation=(parts[1],), flow=ebflow.Flow((SIZE,), layers), levels=17, lr=rate,
        normalize="standardize", batch_size=100, patience=None, seed=seed, progress=False, **limit,
    )  # fmt: skip


def digits(seed: int) -> tuple[Tensor, ...]:
    """Returns training, validation and test images."""
    x = torch.as_tensor(load_digits().data, dtype=torch.uint8)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order].tensor_split((TRAINING, TRAINING + VALIDATION))


def sampling_ms(flow: ebflow.Flow, count: int = 10_000) -> float:
    """Returns the milliseconds of the inverse for some samples."""
    latents = torch.randn(count, SIZE, generator=torch.Generator().manual_seed(0))
    layers = flow.layers[flow.n_preprocessing :]
    start = time.perf_counter()
    with torch.no_grad():
        for layer in reversed(layers):
            latents = layer.inverse(latents)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Trains all, and prints a line for each activation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each training")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| activation | parameters | rate | ms a step | ms of 10,000 inverses | test NLL |")
    for name in ACTIVATIONS:
        found, flows = {}, {}
        for rate in RATES:
            for seed in range(options.seeds):
                parts = digits(seed)
                flow = trained(name, rate, seed, parts, max_seconds=options.seconds)
                held_out, test = (-float(flow.log_prob(x).double().mean()) for x in parts[1:])
                found.setdefault(rate, []).append((held_out, test))
                flows[rate] = flow
        rate = min(found, key=lambda one: float(np.mean(found[one], 0)[0]))
        nlls = np.array(found[rate])[:, 1]
        half = stats.sem(nlls) * stats.t.ppf(0.975, len(nlls) - 1)
        flow = flows[rate]
        size = sum(p.numel() for p in flow.parameters())
        step = 1000 * flow.report.seconds / flow.report.steps
        print(f"| {name} | {size:,} | {rate:g} | {step:.1f} | {sampling_ms(flow):.0f} | "
              f"{nlls.mean():.2f} ± {half:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
