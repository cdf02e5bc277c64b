"""The nets that were trained, as they are judged: which have lost mass.

The order parameter is the squared norm of the latents' mean, which is zero at the truth: half of
it, in nats, is what moving the last offset alone would give back.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.paper.config import StackConfig
from pipelines.paper.experiments.cell import Folders
from pipelines.paper.experiments.phases.grid import objective_of
from pipelines.paper.stages.stack import LOG_PROBS, TRAININGS

LOST = 0.25
"""Squared latent mean an element from which on mass is missing: an eighth of a nat an element."""

RISEN = 1.1
"""Times its least on the way: a mean that is large and no larger than that is still falling, from
a start far off, and mass is not lost but not yet found."""


@dataclass(frozen=True)
class Trained:
    """A net, and what was measured of it on validation rows.

    Attributes:
        part: Of the experiment.
        width: D.
        preprocessing: Preprocessing.
        activation: Its activation.
        objective: With its noise.
        start: The sign of the identity and the offset that its layers start as.
        rate: The learning rate.
        seed: Of the split, of batches and noise.
        steps: When it was looked at.
        nll: NLL at each look in nats; inf where it was not finite.
        mass: The squared latent mean an element at each look; likewise.
        gaussian: The Gaussian's NLL.
        gains: Test log-densities above the Gaussian's, row by row, at the best look.
    """

    part: str
    width: int
    preprocessing: str
    activation: str
    objective: str
    start: tuple[int, float]
    rate: float
    seed: int
    steps: tuple[int, ...]
    nll: tuple[float, ...]
    mass: tuple[float, ...]
    gaussian: float
    gains: np.ndarray

    @property
    def cell(self) -> tuple[object, ...]:
        """What it shares with those of other seeds."""
        first = (self.part, self.width, self.preprocessing, self.activation, self.objective)
        return (*first, self.start, self.rate)

    @property
    def lost(self) -> bool:
        """Whether mass is missing in the end, and more of it than at the best look."""
        return self.mass[-1] > LOST and self.mass[-1] > RISEN * min(self.mass)

    @property
    def late(self) -> bool:
        """Whether mass is missing in the end, and ever less of it."""
        return self.mass[-1] > LOST and not self.lost

    @property
    def excess(self) -> float:
        """The NLL in the end above the Gaussian's, in nats."""
        return self.nll[-1] - self.gaussian

    @property
    def best(self) -> float:
        """The least NLL of a look."""
        return min(self.nll)

    def at(self, step: int) -> tuple[float, float]:
        """Returns NLL above the Gaussian's, and squared latent mean, both an element."""
        place = self.steps.index(step)
        return (self.nll[place] - self.gaussian) / self.width, self.mass[place]


def read(folders: Sequence[Folders]) -> list[Trained]:
    """Returns all nets, from the folders of their stages."""
    return [net for (folder,) in folders for net in _read(folder)]


def _read(folder: Path) -> list[Trained]:
    stored = json.loads((folder / TRAININGS).read_text())
    config = StackConfig.model_validate(stored["config"])
    rows = np.load(folder / LOG_PROBS)
    gains = rows["nets"] - rows["gaussian"]
    return [
        Trained(
            config.part,
            stored["width"],
            one["preprocessing"],
            config.activation,
            objective_of(config),
            (one["sign"], one["bias"]),
            one["rate"],
            config.seed,
            tuple(look["step"] for look in one["looks"]),
            _numbers(one["looks"], "nll", 1.0),
            _numbers(one["looks"], "mean_norm2", stored["width"]),
            stored["gaussian"],
            gain,
        )
        for one, gain in zip(stored["trainings"], gains, strict=True)
    ]


def _numbers(looks: Sequence[dict], name: str, unit: float) -> tuple[float, ...]:
    """Returns what was measured at looks, a number that was not finite as infinity."""
    return tuple(np.inf if look[name] is None else look[name] / unit for look in looks)


def share(nets: Sequence[Trained]) -> float:
    """Returns the share of nets that lost mass."""
    return float(np.mean([net.lost for net in nets]))
