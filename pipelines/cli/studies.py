"""The studies that ``ebflow run`` knows: the name of each, and its pipeline as ``module:name``."""

STUDIES = {
    "paper": "pipelines.paper.graph:PAPER",
    "gradient-alignment": "pipelines.gradient_alignment.graph:ALIGNMENT",
    "sample-complexity": "pipelines.sample_complexity.graph:SAMPLE_COMPLEXITY",
}
