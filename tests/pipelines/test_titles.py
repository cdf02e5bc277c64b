"""What tells runs apart by their names."""

from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig


def test_cells_of_every_experiment_of_the_paper_have_titles_of_their_own():
    for name, experiment in EXPERIMENTS.items():
        tables = ("a.parquet", "b.parquet") if name in ("tables", "detection") else ()
        config = PaperConfig(experiment=name, sources=tables)
        titles = [one.title for one in experiment.all_cells(config)]
        assert len(set(titles)) == len(titles), name
