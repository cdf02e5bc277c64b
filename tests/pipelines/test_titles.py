"""Names that distinguish runs."""

import pytest

from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_cells_of_an_experiment_of_the_paper_have_titles_of_their_own(name):
    tables = ("wine", "diabetes") if name in ("tables", "detection", "conditional") else ()
    config = PaperConfig(experiment=name, sources=tables)
    titles = [one.title for one in EXPERIMENTS[name].all_cells(config)]
    assert len(set(titles)) == len(titles)
