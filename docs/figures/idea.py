"""Draws ``idea.png``: the idea of the three papers in four pictures.

``OMP_NUM_THREADS=1 python docs/figures/idea.py`` takes about three minutes of one core. The second
picture has times: run nothing else on the machine.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from sklearn.datasets import load_digits
from torch.nn import functional as F

import ebflow
from ebflow.alignment.classifiers import CLASSIFIERS
from ebflow.alignment.fooling import face, linear
from ebflow.alignment.logit import shifted
from ebflow.complexity.instances import HALF, far_mode, worst_eta
from ebflow.complexity.samplers import ladder, reverse_sde
from ebflow.complexity.spoiled import Spoiled
from pipelines.paper.timing import NETWORKS, benchmark, build, measured_peak
from pipelines.reporting import plane
from pipelines.reporting.style import BASELINE, DATA, FLOW, panels

HERE = Path(__file__).parent

ARROWS = 14  # Arrows across the picture of a score

SIDES = (8, 16, 28, 40, 56)  # Pixels of an image's side, whose square is D
OBJECTIVES = {
    "ml": ("exact likelihood", BASELINE, "-"),
    "dsm": ("score matching", FLOW, "-"),
    "lazy_ml": ("likelihood, lazy", FLOW, "--"),
}

RATIO, EPSILON, STEPS = 8.0, 0.35, 40  # R/σ, the error of the far mode's weight, and N
SPOILED = 0.1  # δ
SAMPLES = 100_000


def draw_flow(axis: Axes) -> None:
    """Draws the density and the score of a flow that is trained by its score alone."""
    generator = torch.Generator().manual_seed(0)
    x = ebflow.toy.sine(20_000, generator=generator).float()
    loss = ebflow.Loss(partial(ebflow.objectives.dsm, sigma=0.3))
    flow = ebflow.fit(
        x,
        architecture="coupling",
        options={"depth": 6, "hidden": 32, "bound": 2.0},
        normalize="standardize",
        marginals=False,
        loss=loss,
        lr=3e-3,
        steps=6000,
        patience=None,
        seed=0,
        progress=False,
    )
    square = plane.Square((-9.0, -7.5), (9.0, 7.5))
    arrays = plane.evaluate(Single(flow), square, pixels=160, arrows=ARROWS)
    plane.draw(axis, "density", arrays, square)
    points = square.centres(ARROWS).numpy()
    arrows = arrays["score"].reshape(-1, 2)
    lengths = np.linalg.norm(arrows, axis=1, keepdims=True)
    arrows = arrows / np.maximum(lengths, np.median(lengths))
    axis.quiver(*points.T, *arrows.T, angles="xy", color="white", alpha=0.7, width=0.005)
    axis.set_title("a flow trained by its score,\nits likelihood exact", fontsize=10)


class Single:
    """A flow in single precision as a density of points in double precision."""

    def __init__(self, flow: ebflow.Flow) -> None:
        self.flow = flow

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Returns log p(x) with shape (B,)."""
        return self.flow.log_prob(x.float())

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """Returns E(x) with shape (B,)."""
        return self.flow.energy(x.float())

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ∇ log p(x) with shape (B, 2)."""
        return self.flow.score(x.float())


def draw_times(axis: Axes) -> None:
    """Draws the time of a training step of two dense layers against D."""
    peak = measured_peak()
    times = {name: [] for name in OBJECTIVES}
    for side in SIDES:
        flow = build(NETWORKS["FC"], 1, side)
        for row in benchmark(flow, list(OBJECTIVES), peak=peak, seconds=2.0):
            times[row["label"]].append(row["ms"])
    sizes = [side**2 for side in SIDES]
    for name, (label, colour, style) in OBJECTIVES.items():
        axis.loglog(sizes, times[name], style, marker=".", color=colour, label=label)
    axis.set(xlabel="dimension D", ylabel="ms a step")
    axis.legend(fontsize=8)
    ratio = times["ml"][-1] / times["dsm"][-1]
    title = f"no determinant in a step:\n{ratio:.0f} × faster at D = {sizes[-1]:,}"
    axis.set_title(title, fontsize=10)


def draw_samples(axis: Axes) -> None:
    """Draws samples by exact scores, and by scores that are wrong at a tenth of the points."""
    truth = far_mode(RATIO, worst_eta(RATIO, EPSILON))
    levels = ladder(2.0 * RATIO * HALF, HALF, STEPS)
    kinds = ((0.0, "exact score", DATA, "-"), (SPOILED, "spoiled score", FLOW, "--"))
    for delta, label, colour, style in kinds:
        places = torch.Generator().manual_seed(0)
        noise = torch.Generator().manual_seed(1)
        scores = Spoiled.at(truth, levels, delta=delta, epsilon=0.0, generator=places)
        x = reverse_sde(scores, (SAMPLES, 1), truth.means, levels=levels, generator=noise)
        look = {"color": colour, "linestyle": style, "label": label, "histtype": "step"}
        axis.hist(x[:, 0].numpy(), bins=90, range=(-4.0, 12.0), density=True, **look)
    axis.set(xlabel="x", ylabel="density of samples")
    axis.legend(fontsize=8)
    title = f"a score that is huge at {SPOILED:.0%} of points\nmoves {SPOILED:.0%} of the samples"
    axis.set_title(title, fontsize=10)


def draw_gradients(axis: Axes) -> None:
    """Draws gradients of two classifiers with the same predictions at the same image."""
    network, images = classifier()
    fooled = shifted(network, linear(face((8, 8))))
    x = images[:1]
    pictures = [x, gradient(network, x), gradient(fooled, x)]
    names = ["image"]
    for one in (network, fooled):
        probability, label = torch.softmax(one(x).detach(), 1).max(1)
        names.append(f"says {int(label)} ({float(probability):.1%})")
    axis.axis("off")
    title = "equal predictions, another gradient:\nlogits are densities up to a shift"
    axis.set_title(title, fontsize=10)
    for place, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        inset = axis.inset_axes((0.34 * place, 0.2, 0.31, 0.62))
        most = float(picture.abs().max())
        look = {"cmap": "gray", "vmin": 0} if not place else {"cmap": "RdBu_r", "vmin": -most}
        inset.imshow(picture.view(8, 8), vmax=most, **look)
        inset.set(xticks=[], yticks=[])
        inset.set_xlabel(name, fontsize=8)
        inset.grid(visible=False)


def classifier() -> tuple[torch.nn.Module, torch.Tensor]:
    """Returns a perceptron that is trained on digits, and the images that it did not see."""
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = CLASSIFIERS["mlp"]((64,), 10, hidden=128, generator=generator)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(600):
        rows = torch.randint(1500, (128,), generator=generator)
        noise = 0.1 * torch.randn(128, 64, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(network(x[rows] + noise), labels[rows]).backward()
        optimizer.step()
    return network, x[1500:]


def gradient(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Returns the gradient of the largest logit, with the shape of ``x``."""
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(network(x).amax(1).sum(), x)[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    figure, axes = panels(4, 14, 3.4)
    draw_flow(axes[0])
    draw_times(axes[1])
    draw_samples(axes[2])
    draw_gradients(axes[3])
    figure.savefig(HERE / "idea.png")
