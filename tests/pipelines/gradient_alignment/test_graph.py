"""The graph of the study: a replicate for every seed."""

from functools import partial

from pipelines.gradient_alignment import graph
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.models import models, replicates


def made(kind, config, inputs, title=""):
    """What a graph asks for, instead of an artefact."""
    return kind, config, inputs, title


def test_the_graph_is_a_replicate_for_every_seed(monkeypatch):
    for kind in ("prepare", "flow", "reference", "classify", "measure", "align"):
        monkeypatch.setattr(graph, kind, partial(made, kind))
    monkeypatch.setattr(graph, "judged", lambda config, data: ("judge", config.seed, data))
    monkeypatch.setattr(graph, "flows", lambda config, *inputs: ("flows", config.seed, inputs))
    monkeypatch.setattr(graph, "gather", lambda found: found)
    monkeypatch.setattr(graph, "all_or_fail", lambda found: found)
    config = AlignmentConfig()
    _, _, (data, densities, found), _ = graph.alignment(config, "source")["report"]
    seeds = [one.seed for one in replicates(config)]
    assert len(data) == len(densities) == len(seeds) and len({repr(one) for one in data}) == 6
    assert [one[1].seed for one in densities] == seeds
    assert len({repr(one[2][1]) for one in densities}) == 6  # flows of the classes
    assert len({repr(one[2][2]) for one in densities}) == 6  # the flow of all rows
    assert len(found) == len(seeds) * len(models(config))
    for k, (kind, settings, (base, *trained_flows, trained), _) in enumerate(found):
        seed = k // len(models(config))
        assert kind == "measure" and settings.seed == seeds[seed] and base == data[seed]
        assert [base, *trained_flows] == densities[seed][2] and trained[2] == ("judge", seed, base)
        assert [one[1].seed for one in trained[:2]] == [seed] * 2
