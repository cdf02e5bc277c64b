"""Small stages in this process, and what evaluates graphs of them as a run does."""

from pathlib import Path
from types import SimpleNamespace

from pipelines.config import EvaluateConfig
from pipelines.engine.graphs import evaluate
from pipelines.engine.pipeline import Description, Pipeline, Run
from pipelines.engine.runner import Session
from pipelines.engine.stages import Source, Stage
from tests.pipelines.stages import CALLS

STAGES = ("write", "double")
NOTES = []

write, double, mend, threads = (
    Stage(f"tests.pipelines.stages.{name}", executor="driver")
    for name in ("write", "double", "mend", "threads")
)


def graph(samples=3, source="same", **unkeyed):
    data = write(EvaluateConfig(samples=samples, **unkeyed), source=Source("here", source))
    return {"data": data, "doubled": double(None, data=data)}


class Silent:
    def queued(self, stage, key):
        pass

    def started(self, stage, key):
        pass

    def finished(self, stage, key):
        pass

    def report(self, stage, key, share, text, note=""):
        pass

    def note(self, stage, text):
        NOTES.append((stage, text))

    console = SimpleNamespace(print=lambda *_, **__: None)


def run_of(describe=lambda config: Description(("parent",), "", {}), graph=None, **options):
    pipeline = Pipeline("tests", graph=graph, describe=describe)
    options = {"name": "tests", "output": Path("results"), **options}
    return Run(pipeline, config=None, command="ebflow run tests", **options)


class Engine:
    """Evaluates graphs as a run does."""

    def __init__(self, *describe, **options):
        self.tracked = run_of(*describe, **options)

    def run(self, graph, output=None):
        with Session(self.tracked, "key", Silent()) as started:
            return evaluate(graph, started.start, force=self.tracked.force, output=output)


def ran(engine, expression):
    """Runs it; returns which stages ran."""
    CALLS.clear()
    outcome = engine().run(expression)
    assert sorted(CALLS) == sorted(
        stage for stage, status in outcome.statuses.items() if status.ran
    )
    return set(CALLS)
