"""The paper's experiments by name.

Source of settings and published numbers: Training Energy-Based Normalizing Flow with
Score-Matching Objectives (Chao, Sun, Hsu, Kira, Lee, 2023), arXiv:2305.15267, and its code.
"""

__all__ = ["EXPERIMENTS"]

from pipelines.paper.experiments.cell import Experiment
from pipelines.paper.experiments.phases import PHASES
from pipelines.paper.experiments.rivals import RIVALS
from pipelines.paper.experiments.runtime import RUNTIME
from pipelines.paper.experiments.scores import ANCHOR, SCORES
from pipelines.paper.experiments.table import TABLE
from pipelines.paper.experiments.tables import MISSING, TABLES
from pipelines.paper.experiments.toy import TOY

EXPERIMENTS: dict[str, Experiment] = {
    "table": TABLE,
    "toy": TOY,
    "runtime": RUNTIME,
    "rivals": RIVALS,
    "scores": SCORES,
    "tables": TABLES,
    "phases": PHASES,
    "missing": MISSING,
    "anchor": ANCHOR,
}
