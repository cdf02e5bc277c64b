"""The studies that ``ebflow run`` knows: an entry each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pipelines.config import Section


@dataclass(frozen=True)
class Study:
    """A command that runs a pipeline of a ``scale``, ``cpu`` if nothing is said.

    Modules are imported when something of them is asked for.

    Attributes:
        name: Of the command.
        graph: The pipeline, as ``module:name``.
        config: What returns its configuration, given the keyword ``scale``; as ``module:name``.
        help: A line for the list of commands.
        about: What the help of the command begins with.
    """

    name: str
    graph: str
    config: str
    help: str
    about: str

    def run(self, words: Sequence[str], **given: Any) -> int:  # noqa: ANN401
        """Returns the exit code."""
        return resolve_name("pipelines.cli.run:study")(words, self, **given)

    def base(self, scale: str | None = None) -> "Section":
        """Returns the configuration of a scale; that of ``cpu`` if there is no such one."""
        config = resolve_name(self.config)
        found = config(scale="cpu")
        known = get_args(type(found).model_fields["scale"].annotation)
        return config(scale=scale) if scale in known else found


STUDIES = (
    Study(
        "paper",
        "pipelines.paper.graph:PAPER",
        "pipelines.paper.config:PaperConfig",
        "the paper's experiments, beside what was published",
        "Runs an experiment of the paper again, and shows published beside measured numbers. "
        "Takes about 20 minutes at scale cpu. Interrupted, it goes on where it stopped.",
    ),
    Study(
        "gradient-alignment",
        "pipelines.gradient_alignment.graph:ALIGNMENT",
        "pipelines.gradient_alignment.config:AlignmentConfig",
        "classifiers as densities: are their gradients scores?",
        "Trains classifiers with and without regularizers, and measures what their gradients are. "
        "Takes less than 12 minutes at scale cpu. Interrupted, it goes on where it stopped.",
    ),
    Study(
        "sample-complexity",
        "pipelines.sample_complexity.graph:SAMPLE_COMPLEXITY",
        "pipelines.sample_complexity.config:at_scale",
        "how many samples a score needs: exponents and claims",
        "Measures how many samples networks need to learn the score of a distribution with a rare "
        "mode, and judges claims. --scale sets the defaults of all other options. After an "
        "interruption, the same command resumes.",
    ),
)
