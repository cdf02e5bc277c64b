"""What tells runs apart by their names."""

from pipelines.gradient_alignment.config import RegulariserConfig
from pipelines.gradient_alignment.models import title
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import EXPERIMENTS


def test_cells_of_every_experiment_of_the_paper_have_titles_of_their_own():
    for name, experiment in EXPERIMENTS.items():
        sources = {"sources": ("a.parquet", "b.parquet")} if name == "tables" else {}
        config = PaperConfig(experiment=name, **sources)
        titles = [one.title for one in experiment.placed(config)]
        assert len(set(titles)) == len(titles), name


def test_a_penalty_has_a_short_name():
    assert title(RegulariserConfig()) == "cross-entropy"
    assert title(RegulariserConfig(name="gnorm", weight=0.01)) == "gnorm λ 0.01"
    found = RegulariserConfig(name="score", estimator="taylor", weight=1e-3)
    assert title(found) == "score taylor λ 0.001"
