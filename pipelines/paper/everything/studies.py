"""The runs of pipelines that measure the items of the three papers."""

from collections.abc import Iterator, Mapping
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
        return " ".join(["ebflow", "run", self.pipeline.name, *_words(self.options)])


def _words(options: Mapping[str, Any], prefix: str = "--") -> Iterator[str]:
    """Yields options as on the command line; those of a section in a dictionary have its name."""
    for name, value in options.items():
        option = prefix + name.replace("_", "-")
        if isinstance(value, Mapping):
            yield from _words(value, f"{option}.")
        elif not isinstance(value, Section):
            values = value if isinstance(value, tuple) else (value,)
            yield from (option, *map(str, values))


# Residual networks on colour images by scale. At ``smoke`` everything is as small as it can be.
COLOUR: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "data": {"source": "digits-on-photographs", "label": "label", "rows": 2_640},
        "classifier": {
            "network": "resnet9",
            "hidden": 8,
            "epochs": 3,
            "batch_size": 16,
            "lr": 4e-3,
        },
        "measure": {"points": 32, "samples": 9, "ascent": 30},
    },
    "cpu": {
        "seeds": 3,
        "data": {"source": "digits-on-photographs", "label": "label", "rows": 5_000},
        "classifier": {
            "network": "resnet9",
            "hidden": 8,
            "epochs": 8,
            "batch_size": 32,
            "lr": 4e-3,
        },
        "measure": {"points": 200, "samples": 25, "ascent": 200},
    },
    "full": {
        "data": {"source": "cifar10", "label": "label"},
        "classifier": {"augment": "crop-flip"},
    },
}


def _colour(scale: str) -> Study:
    """Returns the study of residual networks on colour images."""
    options: dict[str, Any] = {"scale": scale, "name": "colour", **COLOUR[scale]}
    options["reference"] = {"kind": "none"}
    options["models"] = ("blind-gaussian", "colour-score", "colour-control", "fool-shift")
    return Study("gradient-alignment-colour", ALIGNMENT, options)


def studies(config: PaperConfig) -> list[Study]:
    """Returns the runs at a scale, in the order of the papers."""
    experiments = [name for name in EXPERIMENTS if name not in FURTHER]
    complexity = Study("sample-complexity", SAMPLE_COMPLEXITY, {"scale": config.scale})
    alignment = Study("gradient-alignment", ALIGNMENT, {"scale": config.scale})
    runs = [_experiment(config, name) for name in experiments]
    return [*runs, complexity, alignment, _colour(config.scale)]


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
