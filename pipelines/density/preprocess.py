"""From prepared data to the preprocessing in front of a flow, and to the baselines beside it."""

from dataclasses import replace
from pathlib import Path

from ebflow import mixtures
from pipelines.config import PreprocessFit
from pipelines.data.dataset import Dataset
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun
from pipelines.training.preprocessing import (
    COLUMNS,
    GAUSSIAN,
    MIXTURE,
    NUMBERS,
    PREPROCESSING,
    baseline,
    column_names,
    fit_preprocessing,
    preprocessed_splits,
)


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
    preprocessing = fit_preprocessing(config, dataset)
    preprocessing.save(run.output / PREPROCESSING)
    columns = preprocessing.columns.summary(column_names(dataset)) if preprocessing.columns else {}
    write_json(run.output / COLUMNS, columns)
    report(1 / 3, "fits the Gaussian")
    gaussian = baseline(dataset, config.options)
    report(2 / 3, "fits mixtures of Gaussians")
    train, validation = preprocessed_splits(dataset, gaussian, config.seed)
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
