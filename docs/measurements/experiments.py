"""Runs an experiment of a script in this folder, as ``ebflow run paper`` runs its own.

A script has a stage of its own: a function with the name of the script, so that the script's code
is part of the stage's key. The stages that measure its rivals may be modules in this folder, too.
"""

import shlex
import sys
from dataclasses import replace

from pipelines.cli.run import execute, study
from pipelines.cluster import environment
from pipelines.engine.graphs import gather_cells
from pipelines.engine.stages import Artefact, Stage, needs_from_config
from pipelines.paper.cell import Experiment
from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig
from pipelines.paper.graph import EXPERIMENT, STAGES, Sources, stages


def main(kind: type[PaperConfig], experiment: Experiment, *rivals: str) -> None:
    """Runs an experiment with the options of the command line.

    Arguments:
        kind: The class of its configuration.
        experiment: The experiment.
        rivals: The names of modules in this folder that measure a rival.
    """
    name = kind().experiment
    EXPERIMENTS[name] = experiment
    STAGES.update({rival: Stage(rival, needs=needs_from_config) for rival in rivals})
    report = Stage(name, executor="driver")

    def graph(config: PaperConfig, sources: Sources) -> dict[str, Artefact]:
        cells = experiment.all_cells(config)
        return {"report": report(config, outcomes=gather_cells(stages(c, sources) for c in cells))}

    environment.prepare()
    request = study(sys.argv[1:], replace(EXPERIMENT, config=kind, graph=graph))
    execute(replace(request, run=replace(request.run, command=shlex.join(["python", *sys.argv]))))
