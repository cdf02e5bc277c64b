"""The runs of pipelines that measure the items of the three papers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.config import Section
from pipelines.engine.pipeline import Pipeline
from pipelines.gradient_alignment.graph import ALIGNMENT
from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig
from pipelines.paper.graph import EXPERIMENT
from pipelines.sample_complexity.graph import SAMPLE_COMPLEXITY

# Experiments that measure no item of the papers: they compare methods with others, or map them.
FURTHER = ("tables", "missing", "detection", "rivals", "phases")

# Images by kind and scale. Those of ``smoke`` come with scikit-learn.
IMAGES: Mapping[str, Mapping[str, str]] = {
    "grey images": {"smoke": "digits", "cpu": "mnist", "full": "mnist"},
    "colour images": {
        "smoke": "natural-patches-16",
        "cpu": "natural-patches-16",
        "full": "cifar10",
    },
}

# Options of this experiment that are handed on, where an experiment has them.
HANDED_ON = ("seed", "seeds", "seconds", "threads", "cluster")


@dataclass(frozen=True)
class Study:
    """A run of a pipeline, by the options that differ from their defaults."""

    name: str  #: The experiment, or the pipeline if that has none
    pipeline: Pipeline
    options: Mapping[str, Any]

    @cached_property
    def config(self) -> Section:
        """The configuration."""
        return self.pipeline.config(**self.options)

    @property
    def command(self) -> str:
        """The command of this run alone."""
        words = ["ebflow", "run", self.pipeline.name]
        for name, value in self.options.items():
            values = value if isinstance(value, tuple) else (value,)
            if not isinstance(value, Section):
                words += [f"--{name}", *map(str, values)]
        return " ".join(words)


def studies(config: PaperConfig) -> list[Study]:
    """Returns the runs at a scale, in the order of the papers."""
    experiments = [name for name in EXPERIMENTS if name not in FURTHER]
    complexity = Study("sample-complexity", SAMPLE_COMPLEXITY, {"scale": config.scale})
    alignment = Study("gradient-alignment", ALIGNMENT, {"scale": config.scale})
    return [*(_experiment(config, name) for name in experiments), complexity, alignment]


def _experiment(config: PaperConfig, name: str) -> Study:
    """Returns the run of an experiment of the first paper."""
    experiment = EXPERIMENTS[name]
    options: dict[str, Any] = {"experiment": name, "scale": config.scale}
    if experiment.source:
        default = "grey images" if name == "inpainting" else experiment.data
        options["source"] = IMAGES[default][config.scale]
        if config.source and default == "grey images":
            options["source"] = config.source
    for option in HANDED_ON:
        value = getattr(config, option)
        if option in experiment.uses and value != PaperConfig.model_fields[option].default:
            options[option] = value
    return Study(name, EXPERIMENT, options)
