"""The bodies of the cells: from what a cell is told to its table.

A table has one row a training set and m, and these columns as far as they apply: ``panel``,
``learner``, ``sampler``, ``ratio`` (R/σ), ``size`` (d), ``hypotheses`` (|H|), ``height`` (S),
``a``, ``epsilon``, ``eta``, ``m`` (none: no sample is seen twice), ``step`` (of training, where
networks are measured after several), ``seed``, ``n_far`` (training samples of the far mode),
``wrong`` (whether ERM erred), the errors of ``ebflow.complexity.errors.summary``, those over all N
levels of a sampler (``levels_l2`` and ``levels_q``, roots of means of squares of the errors in
mean square and at δ; ``levels_d``, the largest Dᵟ with δ/N), ``train_loss`` and ``held_out_loss``
(E‖σ ŝ + z‖²), ``kl`` and ``kl_smoothed`` (nats), ``kl_floor`` (that of the smoothed truth),
``tv``, ``w1``, ``w2``, ``far_mass`` and its error, ``theta`` (logit of a mode's weight); those of
denoisers are named there.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipelines.sample_complexity import config
from pipelines.sample_complexity.denoisers import denoisers
from pipelines.sample_complexity.efficiency import weights
from pipelines.sample_complexity.finite import classes, finite, steps, two_point
from pipelines.sample_complexity.networks import networks
from pipelines.sample_complexity.pairs import pairs
from pipelines.sample_complexity.samplers import samplers

BODIES: dict[type[config.CellConfig], Callable[[Any], pa.Table]] = {
    config.TwoPointCell: two_point,
    config.FiniteCell: finite,
    config.ClassCell: classes,
    config.StepCell: steps,
    config.NetworkCell: networks,
    config.SamplerCell: samplers,
    config.DenoiserCell: denoisers,
    config.PairCell: pairs,
    config.WeightCell: weights,
}
"""What makes a cell's table, by the type of its configuration."""
