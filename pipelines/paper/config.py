"""Options of the paper's experiments and of their stages."""

from typing import Literal

from pydantic import Field

from pipelines.config import ClusterConfig
from pipelines.config.section import NAME, UNKEYED, Section, Size

Name = Literal["table", "colour-table", "tables", "missing", "detection"]

# Patterns of removed entries: 20 or 40 % at random, or large values more often.
PATTERNS = ("mcar20", "mcar40", "mnar")


class RivalConfig(Section):
    """A method, or a rival of it, that one stage fits to a data set and measures."""

    rival: str
    pattern: str = ""  #: The pattern of removed entries, where some are
    seed: int = 0
    seconds: float | None = None  #: Training seconds; None: no limit but ``steps``
    steps: int = 1_000_000
    threads: int = 1


class PaperConfig(Section):
    """An experiment of the paper, at a scale."""

    experiment: Name = "table"
    """table, colour-table: NLL by network and objective on grey or colour images; tables: the
    recipe beside densities of other packages; missing, detection: imputation, anomalies, by
    ebflow and by other packages"""
    scale: Literal["smoke", "cpu", "full"] = "cpu"
    """length of a training: 60 steps; some seconds, so that the experiment takes less than 20
    minutes on two cores; or the paper's, on GPUs"""
    name: str | None = Field(None, pattern=NAME, json_schema_extra=UNKEYED)
    """name of the run; None: the experiment's"""
    source: str | None = Field(None, min_length=1, json_schema_extra=UNKEYED)
    """images in place of the paper's: a data set (`ebflow data list`), a .parquet file or a
    folder"""
    sources: tuple[str, ...] = Field((), json_schema_extra=UNKEYED)
    """tables: files, or names of data sets; those of detection have a column label, which is 0 in
    normal rows"""
    seconds: float | None = Field(None, gt=0)
    """training seconds of a cell at scale cpu; None: the experiment's"""
    rows: int | None = Field(None, ge=3)
    """number of rows to use; None: all"""
    validation: Size | None = Field(None, gt=0)
    """validation rows, or their share if below 1; None: the source's"""
    test: Size | None = Field(None, gt=0)
    """test rows, or their share if below 1; None: the source's"""
    seed: int = Field(0, ge=0)
    """the first seed"""
    seeds: int = Field(1, ge=1)
    """number of seeds"""
    threads: int = Field(2, ge=1)
    """threads of a training on images"""
    cluster: ClusterConfig = ClusterConfig()
