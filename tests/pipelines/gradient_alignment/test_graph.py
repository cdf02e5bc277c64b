"""The graph of the study: a replicate for every seed."""

from functools import partial

from pipelines.gradient_alignment import graph
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.models import models, replicates


def made(kind, config, *, title="", **inputs):
    """A call of a graph, instead of an artefact."""
    return kind, config, inputs, title


def test_the_graph_is_a_replicate_for_every_seed(monkeypatch):
    for kind in ("prepare", "flow", "reference", "classify", "measure", "align"):
        monkeypatch.setattr(graph, kind, partial(made, kind))
    monkeypatch.setattr(graph, "judged", lambda config, data: ("judge", config.seed, data))
    monkeypatch.setattr(graph, "flows", lambda config, *inputs: ("flows", config.seed, inputs))
    monkeypatch.setattr(graph, "all_or_fail", lambda found: found)
    config = AlignmentConfig()
    _, _, inputs, _ = graph.alignment(config, "source")["report"]
    data, densities, found = inputs["data"], inputs["densities"], inputs["measured"]
    seeds = [one.seed for one in replicates(config)]
    assert len(data) == len(densities) == len(seeds) and len({repr(one) for one in data}) == 6
    assert [one[1].seed for one in densities] == seeds
    for name in ("flows", "all_rows"):
        assert len({repr(one[2][name]) for one in densities}) == 6
    assert len(found) == len(seeds) * len(models(config))
    for k, (kind, settings, inputs, _) in enumerate(found):
        seed = k // len(models(config))
        assert kind == "measure" and settings.seed == seeds[seed]
        assert inputs["data"] == data[seed] and densities[seed][2].items() <= inputs.items()
        assert inputs["judge"] == ("judge", seed, data[seed])
        assert [inputs[name][1].seed for name in ("trained", "baseline")] == [seed] * 2
