"""The paper's experiments by name, each in a file of its own.

Source of settings and published numbers: Training Energy-Based Normalizing Flow with
Score-Matching Objectives (Chao, Sun, Hsu, Kira, Lee, 2023), arXiv:2305.15267, and its code.
"""

__all__ = ["EXPERIMENTS"]

from pipelines.experiments.ablation import ABLATION
from pipelines.experiments.cell import Experiment
from pipelines.experiments.glow import GLOW
from pipelines.experiments.imputation import IMPUTATION
from pipelines.experiments.matrices import MATRICES
from pipelines.experiments.rivals import RIVALS
from pipelines.experiments.runtime import RUNTIME
from pipelines.experiments.scores import SCORES
from pipelines.experiments.table import TABLE
from pipelines.experiments.tables import TABLES
from pipelines.experiments.toy import TOY

EXPERIMENTS: dict[str, Experiment] = {
    "table": TABLE,
    "toy": TOY,
    "ablation": ABLATION,
    "runtime": RUNTIME,
    "matrices": MATRICES,
    "glow": GLOW,
    "imputation": IMPUTATION,
    "rivals": RIVALS,
    "scores": SCORES,
    "tables": TABLES,
}
