"""Runs an experiment of a script in this folder, as ``ebflow run paper`` runs its own.

A script has a stage of its own: a function with the name of the script, so that the script's code
is part of the stage's key.
"""

import shlex
import sys
from dataclasses import replace

from pipelines.cli.run import execute, study
from pipelines.cluster import environment
from pipelines.engine.graphs import gather_cells
from pipelines.engine.stages import Artefact, Stage
from pipelines.paper.cell import Experiment
from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig
from pipelines.paper.graph import PAPER, Sources, stages


def main(kind: type[PaperConfig], experiment: Experiment) -> None:
    """Runs an experiment with the options of the command line."""
    name = kind().experiment
    EXPERIMENTS[name] = experiment
    report = Stage(name, executor="driver")

    def graph(config: PaperConfig, sources: Sources) -> dict[str, Artefact]:
        cells = experiment.all_cells(config)
        return {"report": report(config, outcomes=gather_cells(stages(c, sources) for c in cells))}

    environment.prepare()
    request = study(sys.argv[1:], replace(PAPER, config=kind, graph=graph))
    execute(replace(request, run=replace(request.run, command=shlex.join(["python", *sys.argv]))))
