"""From prepared data to the preprocessing in front of a flow, and to the baselines beside it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ebflow import mixtures
from ebflow.marginals import Marginals
from pipelines.config import PreprocessFit
from pipelines.data.dataset import Dataset
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun
from pipelines.training import preprocessing as fits
from pipelines.training.preprocessing import COLUMNS, GAUSSIAN, MIXTURE, NUMBERS, PREPROCESSING


def preprocess(config: PreprocessFit, data: Path, *, run: StageRun) -> None:
    """Writes the preprocessing, the Gaussian behind the same logit, and a mixture of Gaussians.

    ``columns.json`` describes the preprocessing of a table's columns. The mixture stands behind
    the Gaussian's preprocessing. If there are contexts, the mixture is fitted to both, and a
    regression on the contexts replaces the Gaussian. A mixture that is the flow's base is another
    one, behind the flow's own preprocessing and in its file.

    Raises:
        BadInput: If the data cannot be standardized or whitened.
    """
    dataset, report = run.open(config, Dataset(data)), run.reporter.progress
    report(0.0, "fits the preprocessing")
    preprocessing = fits.fit_preprocessing(config, dataset)
    preprocessing.save(run.output / PREPROCESSING)
    columns, names = preprocessing.columns, fits.column_names(dataset)
    write_json(run.output / COLUMNS, summary(columns, names) if columns else {})
    report(1 / 3, "fits the Gaussian")
    gaussian = fits.baseline(dataset, config.options)
    report(2 / 3, "fits mixtures of Gaussians")
    train, validation = fits.preprocessed_splits(dataset, gaussian, config.seed)
    contexts = dataset.split("train").context_width
    mixture = mixtures.fit_mixture(train, validation, seed=config.seed, contexts=contexts)
    replace(gaussian, base=mixture).save(run.output / MIXTURE)
    base = mixtures.regression(train) if contexts else None
    replace(gaussian, base=base).save(run.output / GAUSSIAN)
    shrinkage = preprocessing.shrinkage
    numbers = {
        **({} if shrinkage is None else {"preprocess/shrinkage": shrinkage}),
        "baseline/contexts": contexts,
        "baseline/gaussian_shrinkage": gaussian.shrinkage,
        "baseline/mixture_components": len(mixture.weights),
        "baseline/mixture_full": int(mixture.full),
    }
    write_json(run.output / NUMBERS, numbers)
    run.log_metrics(numbers)


def summary(columns: Marginals, names: Sequence[str]) -> dict[str, Any]:
    """Returns the treatment of the columns by their names, JSON-able."""
    exact = {name for name, count in zip(names, columns.counts, strict=True) if count}
    pairs = [pair for pair in zip(names, columns.columns, strict=True) if pair[0] not in exact]
    ends = {k: [None if math.isinf(end) else end for end in pair]
            for k, pair in columns.bounds.items()}  # fmt: skip
    return {
        "exact": [name for name in names if name in exact],
        "grids": {name: c.step for name, c in pairs if c.step},
        "levels": {name: c.levels for name, c in pairs if c.levels},
        "atoms": {name: c.atoms for name, c in pairs if c.atoms},
        "bounds": {names[k]: pair for k, pair in ends.items()},
        "tails": [names[k] for k in columns.tails],
    }
