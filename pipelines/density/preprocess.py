"""From prepared data to the preprocessing in front of a flow, and to the baselines beside it."""

from dataclasses import replace
from pathlib import Path

from ebflow import mixtures
from pipelines.config import ChainConfig
from pipelines.data.dataset import Dataset
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun
from pipelines.training import preprocessing


def preprocess(config: ChainConfig, data: Path, *, run: StageRun) -> None:
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
    chain = preprocessing.fitted(config, dataset)
    chain.save(run.output / preprocessing.CHAIN)
    columns = chain.columns.summary(preprocessing.names(dataset)) if chain.columns else {}
    write_json(run.output / preprocessing.COLUMNS, columns)
    report(1 / 3, "fits the Gaussian")
    gaussian = preprocessing.baseline(dataset, config.chain)
    report(2 / 3, "fits mixtures of Gaussians")
    train, validation = preprocessing.behind(dataset, gaussian, config.seed)
    contexts = dataset.split("train").context_width
    found = mixtures.search(train, validation, seed=config.seed, contexts=contexts)
    replace(gaussian, base=found.mixture).save(run.output / preprocessing.MIXTURE)
    base = mixtures.regression(train) if contexts else None
    replace(gaussian, base=base).save(run.output / preprocessing.GAUSSIAN)
    shrunk = {} if chain.shrinkage is None else {"preprocess/shrinkage": chain.shrinkage}
    numbers = {
        **shrunk,
        "baseline/contexts": contexts,
        "baseline/gaussian_shrinkage": gaussian.shrinkage,
        "baseline/mixture_components": found.best.components,
        "baseline/mixture_full": int(found.mixture.full),
        "baseline/mixture_left_out": len(found.skipped),
    }
    write_json(run.output / preprocessing.NUMBERS, numbers)
    run.log_metrics(numbers)
