"""From prepared data to the fitted chain in front of a flow, and to the baselines beside it."""

import json
from dataclasses import replace
from pathlib import Path

from ebflow import mixtures
from pipelines.config import ChainConfig
from pipelines.tracking.run import StageRun
from pipelines.training import preprocessing
from pipelines.training.stage_reports import begin


def preprocess(config: ChainConfig, data: Path, *, run: StageRun) -> None:
    """Writes the chain, that of the full-covariance Gaussian behind the same logit, and a mixture.

    ``columns.json`` says what is done to columns of a table. The mixture of Gaussians stands
    behind the Gaussian's chain; of data with contexts it is over both, and a regression on them
    stands in place of the Gaussian. If one is the flow's base, that is another, behind the flow's
    own chain and in its file.

    Raises:
        BadInput: If the data do not let themselves be standardized or whitened.
    """
    dataset, report = begin(config, config.threads, data, run, "training"), run.reporter.progress
    report(0.0, "fits the chain")
    chain = preprocessing.fitted(config, dataset)
    chain.save(run.output / preprocessing.CHAIN)
    steps = chain.columns.summary(preprocessing.names(dataset)) if chain.columns else {}
    (run.output / preprocessing.COLUMNS).write_text(json.dumps(steps, indent=1) + "\n")
    report(1 / 3, "fits the Gaussian")
    gaussian = preprocessing.baseline(dataset, config.chain)
    report(2 / 3, "fits mixtures of Gaussians")
    rows, held = preprocessing.behind(dataset, gaussian, config.seed)
    given = dataset.split("train").context_width
    found = mixtures.search(rows, held, seed=config.seed, contexts=given)
    replace(gaussian, base=found.mixture).save(run.output / preprocessing.MIXTURE)
    base = mixtures.regression(rows) if given else None
    replace(gaussian, base=base).save(run.output / preprocessing.GAUSSIAN)
    shrunk = {} if chain.shrinkage is None else {"preprocess/shrinkage": chain.shrinkage}
    numbers = {
        **shrunk,
        "baseline/contexts": given,
        "baseline/gaussian_shrinkage": gaussian.shrinkage,
        "baseline/mixture_components": found.best.components,
        "baseline/mixture_full": int(found.mixture.full),
        "baseline/mixture_left_out": len(found.skipped),
    }
    (run.output / preprocessing.NUMBERS).write_text(json.dumps(numbers) + "\n")
    run.log_metrics(numbers)
