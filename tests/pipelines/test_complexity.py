"""The study of sample complexity: its cells, what is read off their rows, and real runs."""

import io
import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from ebflow.complexity.truths import NAMES, load
from ebflow.randomness import generator
from pipelines.cli.main import COMMANDS
from pipelines.cli.parsing import parse_study
from pipelines.reporting.claims import decide
from pipelines.reporting.statistics import Interval
from pipelines.reporting.terminal import terminal
from pipelines.sample_complexity import checks, denoisers, figures, results, tables, verdicts
from pipelines.sample_complexity.cells import PAIR_SIZES, SEPARATIONS, cells
from pipelines.sample_complexity.config import (
    ClassCell,
    DenoiserCell,
    FiniteCell,
    NetworkCell,
    PairCell,
    SamplerCell,
    StepCell,
    TwoPointCell,
    WeightCell,
    at_scale,
)
from pipelines.sample_complexity.crossing import Growth
from pipelines.sample_complexity.exponents import NETWORKS, Answer, Question, answer, questions
from pipelines.sample_complexity.networks import FIRST, RATIO, REACH
from pipelines.sample_complexity.rows import geometric, matrix, where
from pipelines.sample_complexity.stages.conclude import conclude
from pipelines.sample_complexity.stages.learn import BODIES, learn

from .conftest import NO_RAY, Store
from .untracked import Untracked

SMOKE = at_scale("smoke")
DELTAS = SMOKE.grid.deltas
EPSILON = SMOKE.grid.epsilon


def configured(words):
    """Returns the configuration that the words of a command give."""
    return parse_study(words, COMMANDS["run sample-complexity"]).config


def of(kind, config=SMOKE, **fields):
    found = [cell for cell in cells(config) if isinstance(cell, kind)]
    return [c for c in found if all(getattr(c, name) == v for name, v in fields.items())]


@pytest.mark.parametrize("scale", ["smoke", "cpu", "full"])
def test_cells_are_all_different_and_of_every_kind(scale):
    found = cells(at_scale(scale))
    assert len(set(found)) == len(found)
    assert {type(cell) for cell in found} == set(BODIES)


def test_the_grid_is_the_one_that_is_asked_for():
    config = at_scale("cpu")
    finite = of(FiniteCell, config, size=1, eta=None)
    assert {cell.ratio for cell in finite} == {8, 16, 32, 64, 128}
    for noise in ("once", "fresh"):
        line = of(NetworkCell, config, size=1, noise=noise)
        assert {cell.ratio for cell in line} == {8, 16, 32, 64}
        for ratio in (8, 64):
            seeds = [(c.first, c.count) for c in line if c.ratio == ratio]
            assert seeds == [(0, 10), (10, 10), (20, 10)]
    assert {cell.size for cell in of(NetworkCell, config, ratio=32.0)} == {1, 2, 4, 8}
    assert {cell.hypotheses for cell in of(ClassCell, config)} >= {10, 10_000}


def test_the_laws_are_those_that_are_packaged():
    assert set(at_scale("full").laws.names) == set(NAMES)
    assert {cell.eta for cell in of(DenoiserCell, at_scale("cpu"))} == {0, 5e-4, 5e-3, 5e-2}


def test_numbers_are_typed_with_commas_or_apart():
    for words in (["--grid.radii", "8,16,32"], ["--grid.radii", "8", "16", "32"]):
        config = configured([*words, "--grid.seeds", "9", "--grid.epsilon", "0.3"])
        assert config.grid.radii == (8.0, 16.0, 32.0)
        assert (config.grid.seeds, config.grid.epsilon) == (9, 0.3)


def test_options_go_over_the_scale():
    found = configured(["--scale", "smoke", "--learners.width", "7"])
    assert found == SMOKE.model_copy(
        update={"learners": SMOKE.learners.model_copy(update={"width": 7})}
    )


REFUSED = {
    "--grid.radii": ("--grid.radii", "8,x"),
    "--grid.deltas": ("--grid.deltas", "0.1,0.01"),
    "--grid.classes": ("--grid.classes", "2,10"),
    "--laws.sizes": ("--laws.sizes", "100,1000,100"),
    "--laws.etas": ("--laws.etas", "0,1"),
    "--laws.lengths": ("--laws.lengths", "300,100"),
}


@pytest.mark.parametrize("option", REFUSED)
def test_bad_options_are_told_in_one_line(home, ebflow, option):
    result = ebflow("run", "sample-complexity", *REFUSED[option])
    assert not home.exists()
    assert result.refusal.startswith(f"ebflow: {option}: found")


def test_a_far_mode_that_is_too_near_is_refused(home, ebflow):
    result = ebflow("run", "sample-complexity", "--grid.radii", "1,8")
    assert "found 1.0 with epsilon 0.35" in result.refusal


def test_a_grid_is_geometric_and_reaches_its_end():
    assert geometric(8, 100, 2**0.5) == [8, 11, 16, 23, 32, 45, 64, 91, 128]
    assert geometric(2, 9, 1.25)[:3] == [2, 3, 4]


def smaller(cell, **fields):
    return cell.model_copy(update={"count": 2, **fields})


TINY = {
    TwoPointCell: lambda c: smaller(c, count=50),
    FiniteCell: lambda c: smaller(c),
    ClassCell: lambda c: smaller(c),
    StepCell: lambda c: smaller(c),
    NetworkCell: lambda c: smaller(c, steps=5),
    SamplerCell: lambda c: smaller(c, sizes=(8, 16), lengths=(2, 5), samples=100, levels=3),
    DenoiserCell: lambda c: smaller(c, lengths=(1, 3)),
    PairCell: lambda c: smaller(c, sizes=(16, 32, None), steps=5),
    WeightCell: lambda c: smaller(c, samples=50),
}
"""The first cell of each kind, made as small as it goes."""


@pytest.mark.parametrize("kind", TINY, ids=lambda kind: kind.__name__)
def test_a_cell_gives_the_same_rows_again(kind):
    cell = TINY[kind](of(kind)[-1])
    first, again = BODIES[kind](cell), BODIES[kind](cell)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert len(first) >= 2
    other = BODIES[kind](cell.model_copy(update={"seed": 1}))
    assert not first.equals(other)


def test_a_networks_rows_say_what_it_saw_and_how_far_it_is_off():
    cell = smaller(of(NetworkCell, ratio=8.0, noise="fresh")[0], steps=5, count=3)
    rows = BODIES[NetworkCell](cell)
    sizes = geometric(FIRST, REACH / rows["eta"][0], RATIO)
    assert len(rows) == 3 * len(sizes)
    for seed in range(3):
        some = where(rows, seed=seed)
        assert some["m"].tolist() == sizes
        counts = some["n_far"].tolist()
        assert counts == sorted(counts) and all(n <= m for n, m in zip(counts, sizes, strict=True))
    both = np.hypot(rows["sigma_l2_bulk"], rows["sigma_l2_far"])
    np.testing.assert_allclose(rows["sigma_l2"], both, rtol=1e-5)


def test_a_seeds_training_set_is_the_same_in_any_cell():
    cell = smaller(of(NetworkCell, ratio=8.0, noise="fresh")[0], steps=1, count=4)
    whole = BODIES[NetworkCell](cell)
    part = BODIES[NetworkCell](cell.model_copy(update={"first": 2, "count": 2}))
    assert where(whole, seed=3)["n_far"].tolist() == where(part, seed=3)["n_far"].tolist()


def test_samplers_have_errors_over_all_levels_and_floors():
    cell = smaller(of(SamplerCell)[0], sizes=(64,), lengths=(9, 200), samples=2000, levels=9)
    rows = BODIES[SamplerCell](cell)
    true = where(rows, learner="true samples")["far_mass"]
    assert true.mean() == pytest.approx(rows["eta"][0], abs=0.01)
    networks = where(rows, learner="networks")
    assert (networks["levels_d"] >= networks["sigma_d_0.1"]).all()
    assert (networks["levels_q"] > 0).all()
    short, long = (where(networks, step=step)["levels_l2"] for step in (9, 200))
    assert len(short) == len(long) == 2 and long.mean() < short.mean()


def test_denoisers_are_measured_beside_the_exact_score():
    """Untrained they copy nothing; floors are near the law; sets are nested, as they come."""
    cell = of(DenoiserCell, eta=0.05)[0]
    cell = smaller(cell, sizes=(30, 200), lengths=(1,), samples=1000, levels=20)
    rows = BODIES[DenoiserCell](cell)
    networks = where(rows, learner="residual networks")
    assert networks["m"].tolist() == [30, 200, 30, 200]
    seen = networks["n_far"].to_numpy()
    assert (seen[::2] <= seen[1::2]).all() and 2 < seen[1::2].mean() < 20
    floors = rows[rows["learner"].isin(("exact score", "true samples"))]
    assert np.ptp(floors["excess"]) < 2 and floors["far_error"].max() < 0.015
    assert floors["tv"].max() < 0.15 < networks["tv"].iloc[0]
    assert networks["copied"].max() < 0.3
    levels = np.array(networks["by_level_l2"].tolist())
    np.testing.assert_allclose(levels[:, -1], networks["sigma_l2"], rtol=1e-5)
    mean = np.sqrt((levels**2).mean(1))
    np.testing.assert_allclose(mean, networks["levels_l2"], rtol=1e-5)
    missing = where(rows, learner=denoisers.MISSING).iloc[0]
    cost, tail = (np.array(missing[name]) for name in ("by_level_l2", "by_level_d"))
    assert cost.max() > 1 and tail.max() < 0.1 * cost.max(), "a mode of half of δ"


def test_networks_of_a_training_set_have_the_same_test_points_and_no_others_have():
    """So that intervals over sets have in them what test points add."""
    cell, truth = of(DenoiserCell, eta=0.0)[0], load("digits")
    yardstick = denoisers.Yardstick(cell, truth, [2.0, 0.5], torch.empty(0))
    found = yardstick.errors(lambda x, sigma: 0 * x, [3, 3, 4])
    first, second, other = found["levels_l2"].tolist()
    assert first == pytest.approx(second, rel=1e-9) != other


def test_networks_are_measured_while_they_are_trained():
    """The end of a training is the same however often it was looked at before."""
    cell = smaller(of(DenoiserCell, eta=0.0, net="residual")[0], lengths=(2, 6), samples=100)
    rows = BODIES[DenoiserCell](cell)
    whole = BODIES[DenoiserCell](cell.model_copy(update={"lengths": (6,)}))
    nets, whole = (where(found, learner="residual networks") for found in (rows, whole))
    w2 = {step: where(nets, step=step)["w2"].tolist() for step in set(nets["step"])}
    assert w2.keys() == {2, 6} and w2[6] == whole["w2"].tolist() != w2[2]


def test_a_copy_is_nearer_to_training_than_true_samples_are():
    x, training = torch.randn(2, 400, 5, generator=generator(0))
    true = torch.randn(400, 5, generator=generator(1))
    near = denoisers._distance(true, training).quantile(denoisers.NEAR)
    copied = [(denoisers._distance(y, training) < near).double().mean() for y in (training, x)]
    assert copied[0] == 1 and copied[1] < 0.05


def geometric_rows(ratios, trials=400, seed=0):
    """Rows of a finite class whose mean square errs until a far sample is seen."""
    rng, parts = np.random.default_rng(seed), []
    for ratio in ratios:
        eta = 2 / ratio**2
        sizes = geometric(2, 8 / eta, 1.25)
        first = rng.geometric(eta, size=(trials, 1))
        errors = np.where(first > np.array(sizes), 0.7, 0.0).reshape(-1)
        quantile = np.where(np.array(sizes) < 10, 0.7, 0.0)
        parts.append(pd.DataFrame({
            "panel": "finite", "learner": "finite", "ratio": float(ratio), "size": 1, "eta": eta,
            "m": np.tile(sizes, trials), "seed": np.repeat(np.arange(trials), len(sizes)),
            "sigma_l2": errors, "sigma_d_0.1": np.tile(quantile, trials),
        }))  # fmt: skip
    return pd.concat(parts)


def test_exponents_are_read_off_the_rows():
    rows = geometric_rows((8, 16, 32, 64))
    found = {
        q.quantity: answer(q, rows, seed=0)
        for q in questions(at_scale("cpu"))
        if (q.against, q.learner) == ("R/σ", "finite")
    }
    mean, quantile = found["m*_L2"], found["m*_D"]
    assert mean.slope.value == pytest.approx(2, abs=0.2) and mean.slope.interval().low > 1.5
    assert quantile.slope.interval() == pytest.approx((0, 0, 0), abs=1e-9)
    line = mean.exponent
    assert set(line) >= {"quantity", "against", "learner", "slope", "low", "high", "points"}
    assert [point["at"] for point in line["points"]] == [8, 16, 32, 64]


def test_exponents_in_the_error_and_the_mass_are_read_off_the_same_rows():
    """Errors of 1/√(δ m) are below ε from m = 1/(δ ε²) on."""
    config, sizes = at_scale("cpu"), geometric(7, 30_000, 1.1)
    columns = {f"sigma_d_{d:g}": np.tile((d * np.array(sizes)) ** -0.5, 9) for d in DELTAS}
    rows = pd.DataFrame({
        "panel": "networks", "learner": NETWORKS[-1], "ratio": 16.0, "size": 1,
        "m": np.tile(sizes, 9), "seed": np.repeat(np.arange(9), len(sizes)),
        "sigma_l2": columns["sigma_d_0.1"], **columns,
    })  # fmt: skip
    found = {
        (q.quantity, q.against): answer(q, rows, seed=0).slope.value
        for q in questions(config)
        if q.against in ("1/ε", "1/δ")
    }
    assert found[("m*_D", "1/ε")] == pytest.approx(2, abs=0.1)
    assert found[("m*_L2", "1/ε")] == pytest.approx(2, abs=0.1)
    assert found[("m*_D", "1/δ")] == pytest.approx(1, abs=0.1)


def test_one_thing_is_varied_at_a_time():
    usual = {"width": 32, "depth": 2, "rarity": 1.0}
    found = of(NetworkCell, at_scale("cpu"), panel="varied")
    for cell in found:
        assert sum(getattr(cell, name) != value for name, value in usual.items()) <= 1
    for name, count in (("width", 4), ("depth", 4), ("rarity", 4)):
        assert len({getattr(cell, name) for cell in found}) == count


def test_the_far_mode_is_never_heavier_than_what_is_beyond_the_quantile():
    """Nearer modes are heavier: of eight times the weight at R/σ = 12 the quantile would see."""
    found = at_scale("cpu").changed(grid={"radii": (6.0, 12.0, 24.0)})
    assert {cell.rarity for cell in of(NetworkCell, found, panel="varied")} == {1, 2, 4}


def test_a_matrix_has_a_row_a_training_set():
    rows = pd.DataFrame({"seed": [1, 0, 1, 0], "m": [2, 4, 4, 2], "e": [0.1, 0.2, 0.3, 0.4]})
    found, sizes = matrix(rows, "e")
    assert sizes == [2, 4] and found.tolist() == [[0.4, 0.2], [0.1, 0.3]]


def made(quantity, learner, slope, against="R/σ"):
    """An exponent and its standard error, of two resamples of 24 training sets."""
    question = Question(quantity, against, learner, "finite", "e", key="ratio")
    points = [Interval(10.0, 8.0, 12.0) for _ in range(4)]
    value, se = slope or (0, 0)
    away = se * (23 / 48) ** 0.5
    slopes = [value, value + away, value - away] if slope else []
    return Answer(question, (8.0, 16.0, 32.0, 64.0), Growth(points, slopes, 24))


@pytest.mark.parametrize(
    "slope, verdict",
    [
        ((0.0, 0.1), "holds"),
        ((1.0, 0.1), "does not hold"),
        ((0.1, 0.5), "not decided at this size"),
        (None, "not decided at this size"),
    ],
)
def test_an_exponent_of_networks_is_judged_by_its_interval(slope, verdict):
    claim, _ = decide(list(verdicts._exponents([made("m*_D", NETWORKS[0], slope)])))
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    "mean, verdict",
    [(1.6, "holds"), (0.1, "does not hold"), (0.6, "not decided at this size")],
)
def test_exponents_of_both_errors_are_compared(mean, verdict):
    """Of the same resamples: apart their errors of 0.2 would decide nothing."""
    pair = [made("m*_L2", NETWORKS[1], (mean, 0.3)), made("m*_D", NETWORKS[1], (-0.1, 0.2))]
    claims = decide(list(verdicts._exponents(pair)))
    assert len(claims) == 2 and claims[-1].verdict == verdict


def test_exponents_in_mean_square_are_told_without_a_claim():
    found = list(verdicts._exponents([made("m*_L2", NETWORKS[1], (2.1, 0.1))]))
    assert [question.quantity for question, _ in found] == [
        "exponent of m*_L2 in R/σ less that of m*_D"
    ]


@pytest.mark.parametrize("slope, passed", [((2.1, 0.1), True), ((3.0, 0.1), False), (None, None)])
def test_exponents_of_finite_classes_are_checks(slope, passed):
    one = made("m*_L2", "finite", slope)
    assert len(list(verdicts._exponents([one]))) == 1
    assert checks._exponent(one).passed is passed


@pytest.mark.parametrize("exponent, passed", [(1.5, True), (0.7, False)])
def test_the_exponent_of_a_logarithm_is_the_one_of_its_closed_form(exponent, passed):
    """log m* of 4, 49, 499 and 4999 rivals has the exponent 1.39 in log log |H|."""
    one = made("m*_D", "finite", (exponent, 0.1), "log |H|")
    sizes = tuple(float(np.log(size)) for size in (10, 100, 1000, 10_000))
    check = checks._logarithm(SMOKE, replace(one, values=sizes))
    assert check.passed is passed and check.expected == "0.89 to 1.89"


def two_points(rate):
    """Errors of 2,000 sets at 20 points, of which each has its closed form but for one."""
    rng, parts = np.random.default_rng(1), []
    for index in range(20):
        expected = 0.5 * 0.99 ** (index + 1)
        wrong = rng.random(2000) < (rate * expected if index == 7 else expected)
        columns = {"ratio": 8.0, "eta": 0.01, "m": index + 1, "seed": np.arange(2000)}
        parts.append(pd.DataFrame({**columns, "wrong": wrong}))
    return pd.concat(parts)


@pytest.mark.parametrize("rate, passed", [(1.0, True), (0.8, False)])
def test_the_largest_of_many_gaps_is_judged_as_the_largest(rate, passed):
    assert checks._chances(two_points(rate)).passed is passed


def pair_rows(power):
    """KL of 200 fits at every m whose mean falls as a power of m, and at m = ∞."""
    rng, parts = np.random.default_rng(0), []
    for a in SEPARATIONS:
        for m in (*PAIR_SIZES, None):
            kl = 0.001 * rng.chisquare(5, 200) * (1 if m is None else (m / 256.0) ** power)
            columns = {"panel": "pairs", "learner": "ml", "a": a, "seed": np.arange(200), "m": m}
            parts.append(pd.DataFrame({**columns, "kl": kl, "kl_floor": 1.0}))
    return pd.concat(parts).astype({"m": "Int64"})


@pytest.mark.parametrize("power, passed", [(-1.0, True), (-0.5, False)])
def test_the_rate_of_maximum_likelihood_is_a_check(power, passed):
    _, check, _ = checks._divergences(pair_rows(power))
    assert check.passed is passed and check.value == pytest.approx(power, abs=0.05)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The stages of a study of tiny cells, in this process: what the last one leaves."""
    root = tmp_path_factory.mktemp("study")
    small = [TINY[type(c)](c) if isinstance(c, SamplerCell) else c for c in cells(SMOKE)]
    small = [c.model_copy(update={"steps": 3}) if hasattr(c, "steps") else c for c in small]
    folders = []
    for index, cell in enumerate(small):
        folders.append(root / str(index))
        folders[-1].mkdir()
        learn(cell, run=Untracked(folders[-1]))
    output = root / "concluded"
    output.mkdir()
    conclude(SMOKE, folders, run=Untracked(output))
    return output


@pytest.mark.system
def test_the_results_are_one_row_a_cell_and_seed(study):
    rows = pd.read_parquet(study / results.RESULTS)
    keys = ["panel", "learner", "ratio", "size", "hypotheses", "height", "a", "eta", "law", "m",
            "step", "seed", "width", "depth", "rarity"]  # fmt: skip
    assert not rows.duplicated(keys).any()
    assert set(rows["panel"]) == {
        "two points", "finite", "transition", "classes", "steps", "networks", "samplers", "pairs",
        "weights", "truths", "varied",
    }  # fmt: skip


@pytest.mark.system
def test_the_numbers_have_exponents_claims_and_cost(study):
    numbers = json.loads((study / "numbers.json").read_text())
    assert len(numbers["exponents"]) == 22
    against = {one["against"] for one in numbers["exponents"]}
    drawn = {against for panels in figures.GROWN.values() for against, _ in panels}
    assert against == drawn | {"S"}
    assert against == {"R/σ", "d", "log |H|", "1/ε", "1/δ", "η", "width", "depth", "S"}
    told = {claim["quantity"] for claim in numbers["claims"]}
    assert {f"exponent of m*_D in {what}" for what in ("R/σ", "1/δ", "η")} <= told
    assert len(numbers["claims"]) >= 20 and len(numbers["findings"]) == 3
    for claim in numbers["claims"]:
        assert set(claim) >= {"claim", "verdict", "value", "low", "high", "margin", "units"}
        assert claim["verdict"] == "not decided at this size"
        assert claim["expected"] not in ("more than 0", "less than 0"), "effects have a margin"
    assert len(numbers["checks"]) >= 12 and {c["passed"] for c in numbers["checks"]} == {None}
    cost = numbers["cost"]
    assert cost["study/cpu_s"] == pytest.approx(cost["study/cells"] * cost["study/cpu_s_a_cell"])


@pytest.mark.system
def test_every_figure_is_on_the_page_with_its_caption(study):
    page = (study / "report.html").read_text()
    drawn = {path.stem: path for path in (study / "figures").iterdir()}
    for name, path in drawn.items():
        assert path.stat().st_size > 5_000 and f'<figure id="{name}">' in page
    for claim in json.loads((study / "numbers.json").read_text())["claims"]:
        assert claim["figure"] is None or claim["figure"] in drawn


@pytest.mark.system
def test_claims_are_printed(study):
    numbers = json.loads((study / "numbers.json").read_text())
    console = terminal(width=100, file=io.StringIO())
    summary = {**numbers, "stages": {"learn": "50 ran"}, "results": "r", "report": "p",
               "figures": "f"}  # fmt: skip
    results.show(console, summary)
    text = console.file.getvalue()
    assert "sliced W2" in text and "s of a core each" in text


def test_means_have_a_line_a_group_and_nothing_where_there_is_nothing():
    rows = pd.DataFrame({
        "law": "digits", "eta": [0.0, 0.0, 0.05], "m": pd.array([1000, 1000, None], "Int64"),
        "w2": [1.0, 2.0, np.nan],
    })  # fmt: skip
    keys = {"law": "law", "eta": "η", "m": "m"}
    found = tables._means("Laws", rows, keys, {"w2": "sliced W2"}, "")
    assert found.headings == ("law", "η", "m", "sliced W2")
    assert found.rows == [("digits", "0", "1,000", "1.5"), ("digits", "0.05", "", "")]


def finished(store):
    return len(list((store.home / "artefacts" / "learn").glob("*.json")))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_study_goes_on_with_identical_tables(tmp_path):
    """The driver and all that it started are killed in the middle."""
    words = ("run", "sample-complexity", "--scale", "smoke")
    killed = Store(tmp_path / "killed")
    killed.root.mkdir()
    process = killed.start(*words)
    while finished(killed) < 15:
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = finished(killed)
    printed = killed.run(*words)
    total = len(cells(SMOKE))
    assert f"learn {total - before} ran, {before} cached" in printed
    whole = Store(tmp_path / "whole")
    whole.root.mkdir()
    whole.run(*words)
    tables = [
        (store.root / "runs/sample-complexity/study/results.parquet").read_bytes()
        for store in (killed, whole)
    ]
    assert tables[0] == tables[1]
    again = whole.run(*words, **NO_RAY)
    assert f"learn 0 ran, {total} cached" in again or "conclude cached" in again


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cell_that_fails_is_told_and_stops_no_other(tmp_path):
    """At R/σ = 1e200 the weight of the far mode is beyond all numbers, which its cell finds."""
    options = ("--scale", "smoke", "--grid.radii", "8,12,1e200")
    total = len(cells(configured(options)))
    store = Store(tmp_path)
    process = store.start("run", "sample-complexity", *options)
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 1 and f"1 of {total} cells failed" in error
    assert finished(store) == total - 1
