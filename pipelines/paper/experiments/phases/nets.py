"""The nets that were trained, as they are judged: which have lost mass.

The order parameter is the squared norm of the latents' mean, which is zero at the truth: half of
it, in nats, is what moving the last offset alone would give back.
"""

from collections.abc import Sequence

import pandas as pd

from pipelines.paper.experiments.cell import Folders
from pipelines.paper.stages.stack import NETS

LOST = 0.25
"""Squared latent mean an element from which on mass is missing: an eighth of a nat an element."""

RISEN = 1.1
"""Times its least on the way: a mean that is large and no larger than that is still falling, from
a start far off, and mass is not lost but not yet found."""

START = ["sign", "bias"]
CELL = ["part", "width", "preprocessing", "activation", "objective", *START, "rate"]
"""What a net shares with those of other seeds."""


def read(folders: Sequence[Folders]) -> pd.DataFrame:
    """Returns all nets, from the folders of their stages, by whose places they are indexed."""
    found = [pd.read_parquet(folder / NETS) for (folder,) in folders]
    return judged(pd.concat(found, keys=range(len(found)), names=["place", None]))


def judged(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns nets, as ``stages.stack.train`` measures them, with how they ended.

    ``end`` is the squared latent mean an element in the end, ``best`` the least NLL of a look.
    ``lost`` are those of which mass is missing in the end, and more of it than at the best look;
    ``late`` those of which it is missing, and ever less of it.
    """
    end = nets["mass"].map(lambda mass: mass[-1])
    risen = end > RISEN * nets["mass"].map(min)
    ends = {"end": end, "lost": (end > LOST) & risen, "late": (end > LOST) & ~risen}
    return nets.assign(**ends, best=nets["nll"].map(min))


def at(nets: pd.DataFrame, name: str, step: int) -> pd.Series:
    """Returns what was measured of every net at a look."""
    found = [
        values[list(steps).index(step)]
        for values, steps in zip(nets[name], nets["steps"], strict=True)
    ]
    return pd.Series(found, nets.index, float)
