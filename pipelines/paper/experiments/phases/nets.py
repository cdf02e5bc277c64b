"""The nets that were trained, as they are judged: which have lost mass.

The order parameter is the squared norm of the latents' mean, which is zero at the truth: half of
it, in nats, is what moving the last offset alone would give back.
"""

from collections.abc import Sequence

import pandas as pd

from pipelines.paper.experiments.cell import Folders
from pipelines.paper.experiments.phases.grid import PAIRS
from pipelines.paper.stages.stack import NETS

LOST = 0.25
"""Squared latent mean an element from which on mass is missing: an eighth of a nat an element."""

RISEN = 1.1
"""Times its least on the way: a mean that is large and no larger than that is still falling, from
a start far off, and mass is not lost but not yet found."""

CELL = ["part", "width", "preprocessing", "activation", "objective", "start", "rate"]
"""What a net shares with those of other seeds."""


def read(folders: Sequence[Folders]) -> pd.DataFrame:
    """Returns all nets, from the folders of their stages, by whose places they are indexed."""
    found = [pd.read_parquet(folder / NETS) for (folder,) in folders]
    return judged(pd.concat(found, keys=range(len(found)), names=["place", None]))


def judged(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns nets, as ``stages.stack.train`` measures them, with how they ended.

    ``kind`` is ``dsm`` or ``ssm``, of denoising and of sliced score matching, or ``ml``.
    ``end`` is the squared latent mean an element in the end, ``best`` the least NLL of a look.
    ``lost`` are those of which mass is missing in the end, and more of it than at the best look;
    ``late`` those of which it is missing, and ever less of it.
    """
    end = nets["mass"].map(lambda mass: mass[-1])
    risen = end > RISEN * nets["mass"].map(min)
    ends = {"end": end, "lost": (end > LOST) & risen, "late": (end > LOST) & ~risen}
    return nets.assign(**ends, best=nets["nll"].map(min), kind=nets["objective"].str[:3])


def where(nets: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Returns the nets of which columns have these values."""
    return nets[(nets[[*values]] == pd.Series(values)).all(axis=1)]


def pair(nets: pd.DataFrame, activation: str) -> pd.DataFrame:
    """Returns the nets of a pair by seed, at their best start and rate.

    Those have the least mean validation NLL at best looks.
    """
    ways = where(nets, part=PAIRS, activation=activation).groupby(["start", "rate"], sort=False)
    best = ways["best"].mean().idxmin()
    return ways.get_group(best).sort_values("seed", kind="stable")
