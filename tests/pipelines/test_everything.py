"""Every item of the papers: what is run at each scale, and what the page says of it."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from ebflow.errors import BadInput
from pipelines.cli.parsing import parsed
from pipelines.cli.run import RunOptions, option_types
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.paper.cell import Finished
from pipelines.paper.compare import EXPERIMENTS
from pipelines.paper.config import PaperConfig
from pipelines.paper.everything.collect import collect
from pipelines.paper.everything.items import ITEMS, Item, overall
from pipelines.paper.everything.studies import FURTHER, studies
from pipelines.paper.pipeline import PAPER
from pipelines.paper.table import TABLE, conclude
from pipelines.reporting.claims import Check, Question, decide
from pipelines.reporting.statistics import above, student

ALL = PaperConfig(experiment="all", scale="smoke")


def test_every_experiment_of_the_papers_is_run():
    names = {study.name for study in studies(ALL)}
    others = {"sample-complexity", "gradient-alignment", "gradient-alignment-colour"}
    assert names == {*EXPERIMENTS} - {*FURTHER} | others
    assert len({item.id for item in ITEMS}) == len(ITEMS)


@pytest.mark.parametrize("scale", ["smoke", "cpu", "full"])
def test_commands_of_studies_are_theirs(scale):
    config = ALL.changed(scale=scale, seeds=2)
    found = {study.name: study for study in studies(config)}
    assert (
        found["plane"].command == f"ebflow run paper --experiment plane --scale {scale} --seeds 2"
    )
    assert found["plane"].config == PaperConfig(experiment="plane", scale=scale, seeds=2)
    assert found["sample-complexity"].command == f"ebflow run sample-complexity --scale {scale}"


@pytest.mark.parametrize("scale", ["smoke", "cpu", "full"])
def test_the_command_of_colour_images_is_its_configuration(scale):
    (study,) = (
        one for one in studies(ALL.changed(scale=scale)) if one.name == "gradient-alignment-colour"
    )
    words = shlex.split(study.command)
    assert words[:3] == ["ebflow", "run", "gradient-alignment"]
    options = option_types(AlignmentConfig())
    found = parsed(RunOptions[options], "ebflow run gradient-alignment", words[3:])
    assert AlignmentConfig().changed(**found.overrides) == study.config


def test_images_at_scale_smoke_come_with_packages_and_may_be_the_users():
    found = {study.name: study.config for study in studies(ALL)}
    assert found["table"].source == found["glow"].source == "digits"
    assert found["colour-table"].source == "natural-patches-16"
    mine = {study.name: study.config for study in studies(ALL.changed(source="mine.parquet"))}
    assert mine["table"].source == "mine.parquet"
    assert mine["colour-table"].source == "natural-patches-16"


def test_an_option_of_a_single_experiment_is_refused():
    with pytest.raises(BadInput, match="--networks"):
        PAPER.check(ALL.changed(networks=("FC",)))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "not decided at this size"),
        (["holds"], "holds"),
        (["holds", "not decided at this size"], "not decided at this size"),
        (["not decided at this size", "does not hold"], "does not hold"),
    ],
)
def test_an_item_holds_if_all_its_claims_do(verdicts, expected):
    assert overall(verdicts) == expected


def summary(claims=(), checks=(), headline=None):
    return {
        "claims": [vars(claim) | {"estimate": claim.estimate} for claim in claims],
        "checks": [vars(check) | {"verdict": check.verdict} for check in checks],
        "headline": headline,
    }


ITEM = Item("E4", "a subject", "a number", "plane", "sine")


def test_an_item_has_the_numbers_of_its_claims_and_checks():
    mine, other = (Question("It is.", "x", above(0), item=name) for name in ("E4", "E5"))
    claims = decide([(mine, student([1.0, 1.1, 1.2])), (other, student([-1.0, -1.1, -1.2]))])
    checks = [Check.of("It is exact.", "error", 0.5, above(1), item="E4")]
    assert ITEM.measured(summary(claims)).verdict == "holds"
    assert "1.10 [0.85, 1.35]" in ITEM.measured(summary(claims)).text
    found = ITEM.measured(summary(claims, checks))
    assert found.verdict == "does not hold" and "It is exact. error: 0.5" in found.text


def test_a_claim_without_a_number_leaves_the_text_to_the_main_table():
    claims = decide([(Question("It is.", "x", above(0), item="E4"), None)])
    table = {"headings": ["objective", "NLL"], "rows": [["ml", "90.0"]]}
    found = ITEM.measured(summary(claims, headline=table) | {"rows": [{"labels": {"o": "ml"}}]})
    assert (found.text, found.verdict) == ("ml: NLL 90.0", "not decided at this size")


def test_an_item_without_claims_shows_the_lines_with_a_published_number():
    table = {
        "headings": ["network", "objective", "NLL", "paper"],
        "rows": [["FC", "ml", "90.0", "1092.4"], ["FC", "mine", "80.0", ""]],
    }
    rows = [{"labels": {"network": "FC", "objective": "ml"}}]
    found = ITEM.measured(summary(headline=table) | {"rows": rows})
    assert (found.text, found.verdict) == ("FC ml: NLL 90.0", "not decided at this size")


def test_the_page_has_every_item_with_its_figure_and_its_command(tmp_path):
    reports = []
    for study in studies(ALL):
        folder = tmp_path / study.name
        (folder / "figures").mkdir(parents=True)
        for item in (item for item in ITEMS if item.figure):
            Figure().savefig(folder / "figures" / f"{item.figure}.png")
        content = summary(headline=None)
        (folder / "summary.json").write_text(json.dumps(content))
        reports.append(folder)
    run = SimpleNamespace(
        output=tmp_path,
        command="ebflow run paper --experiment all",
        log_params=lambda params: None,
        log_artifacts=lambda folder: None,
    )
    collect(ALL, reports, run=run)
    found = json.loads((tmp_path / "summary.json").read_text())
    known = {study.name for study in studies(ALL)}
    assert [item["id"] for item in found["items"]] == [i.id for i in ITEMS if i.study in known]
    keys = {"id", "published", "measured", "verdict", "command"}
    assert all(keys <= item.keys() for item in found["items"])
    drawn = {item["id"] for item in found["items"] if item["figure"]}
    assert drawn == {item.id for item in ITEMS if item.figure and item.study in known}
    page = (tmp_path / "report.html").read_text()
    assert all(item["command"] in page for item in found["items"])
    assert page.count('href="#plane: checkerboard"') == 1 == page.count('id="plane: checkerboard"')


@pytest.mark.parametrize(
    ("steps", "nll", "data", "verdict"),
    [
        (100_000, 1095.0, "mnist", "holds"),
        (100_000, 1150.0, "mnist", "does not hold"),
        (1_000, 1095.0, "mnist", "not decided at this size"),
        (100_000, 95.0, "digits", None),
    ],
)
def test_published_numbers_are_compared_with_long_trainings_of_their_data(
    tmp_path, steps, nll, data, verdict
):
    config = PaperConfig(
        experiment="table",
        source=f"{data}.parquet",
        networks=("FC",),
        settings=("paper",),
        objectives=("ml",),
    )
    (cell,) = TABLE.all_cells(config)
    np.savez(tmp_path / "log_probs.npz", test=-nll + np.random.default_rng(0).normal(size=500))
    (tmp_path / "training.json").write_text(json.dumps({"metrics": {"train/steps": steps}}))
    (tmp_path / "evaluation.json").write_text(json.dumps({"test/nll": nll}))
    finished = [Finished(cell, {"trained": tmp_path, "likelihood": tmp_path})]
    claims = conclude("mnist", "E5", finished).claims
    assert [claim.verdict for claim in claims] == ([verdict] if verdict else [])
