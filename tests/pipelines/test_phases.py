"""The map of where training by scores alone loses mass: its grid and its claims."""

import json
import math
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest

from pipelines.config import Dsm, Likelihood, Objective
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import prepare
from pipelines.paper import phases
from pipelines.paper.cell import Cell, Finished
from pipelines.paper.compare import EXPERIMENTS, headline
from pipelines.paper.config import PaperConfig, StackConfig
from pipelines.paper.phases import EARLY, LOST, MAP, PAIRS, PLAIN, PUBLISHED, figure, judged
from pipelines.paper.stack import NETS, stack, start_name, train
from pipelines.reporting.claims import decide
from pipelines.reporting.result import Result, plots

from .untracked import Untracked

PHASES = EXPERIMENTS["phases"]
CONFIG = PaperConfig(experiment="phases", scale="smoke", seeds=2)
ROWS = 40


def size(config):
    return len(config.preprocessings) * len(config.starts) * len(config.rates)


def test_the_grid_crosses_all_that_may_matter():
    cells = PHASES.all_cells(CONFIG)
    nets = {part: [c.config for c in cells if c.config.part == part] for part in (MAP, PAIRS)}
    assert sum(map(size, nets[MAP])) == 2 * 3 * 5 * 2 * 4 * 2
    scores = {config.objective for config in nets[MAP]}
    assert {score.sigma for score in scores if score.name == "dsm"} == {0.1, 0.3, 1.0}
    assert (-1, 1.0) in nets[MAP][0].starts, "the published start"
    assert [(c.activation, c.objective.name) for c in nets[PAIRS]] == 2 * [
        ("published", "ml"), ("centred", "dsm"), ("learned", "dsm"),
    ]  # fmt: skip


@pytest.mark.parametrize("scale", ["smoke", "cpu", "full"])
def test_nets_are_looked_at_early_and_in_the_end(scale):
    for cell in PHASES.all_cells(CONFIG.model_copy(update={"scale": scale})):
        assert {0, EARLY, cell.config.steps} <= {*cell.config.looks}


def seeds(part, **changes):
    cells = PHASES.all_cells(CONFIG.model_copy(update=changes))
    return {cell.seed for cell in cells if cell.config.part == part}


def test_seeds_begin_where_they_are_told_to_and_are_those_of_the_scale():
    assert seeds(MAP, seed=7) == seeds(PAIRS, seed=7) == {7, 8}
    assert (
        seeds(MAP, seeds=None, scale="cpu") == seeds(PAIRS, seeds=None, scale="cpu") == {*range(5)}
    )
    assert seeds(MAP, seeds=1) == {0}, "fewer than those of the scale"


def test_a_seed_has_a_split_an_order_and_noise_of_its_own():
    cells = PHASES.all_cells(CONFIG.model_copy(update={"seed": 7}))
    assert all(cell.seed == cell.config.seed == cell.data.seed for cell in cells)


def test_splits_of_two_seeds_have_other_rows(tmp_path):
    first = [next(c.data for c in PHASES.all_cells(CONFIG) if c.seed == seed) for seed in (0, 1)]
    rows = {}
    for data in first:
        folder = tmp_path / str(data.seed)
        prepare(data.source, folder, seed=data.seed)
        split = Dataset(folder).split("test")
        rows[data.seed] = {row.numpy().tobytes() for batch in split.batches(50) for row in batch.x}
    assert len(rows[0] - rows[1]) > len(rows[0]) / 2


def net(
    part=MAP, *, activation="published", mass=(0.1, 0.1, 0.1), nll=(110.0, 105.0, 102.0), **changes
):
    """A net that was looked at before training, early, and in the end."""
    return {
        "part": part, "preprocessing": "whitened", "activation": activation,
        "objective": "dsm 0.3", "start": start_name(*PLAIN), "rate": 1e-3, "seed": 0,
        "nll": nll, "mass": mass, "gaussian": 104.0,
        "gain": 0.0, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(("mass", "lost"), [
    ((0.1, 0.1, LOST), False), ((0.1, 0.1, 2 * LOST), True), ((9, 1, 2), True),
    ((9, 3, 1), False), ((0.1, math.inf, math.inf), True),
])  # fmt: skip
def test_mass_is_lost_where_it_is_missing_and_was_less_so(mass, lost):
    (found,) = judged(pd.DataFrame([net(mass=mass)])).itertuples()
    assert found.lost == lost


def grid(mass_of, part=MAP, **changes):
    """Nets whose squared latent mean before training decides whether they lose mass.

    Preprocessings tell them apart; every fourth has a start and a rate in common.
    """
    early = np.random.default_rng(0).uniform(0, 2, 40)
    ways = list(product((PLAIN, PUBLISHED), (phases.SLOW, phases.FAST)))
    return [
        net(part, preprocessing=f"whitened {k}", start=start_name(*ways[k % 4][0]),
            rate=ways[k % 4][1], mass=(m, m * early[k], mass_of(m)), **changes)
        for k, m in enumerate(np.geomspace(0.001, 10, 40).tolist())
    ]  # fmt: skip


def of_seeds(nets, seeds):
    return [{**one, "seed": seed} for seed in seeds for one in nets]


def framed(nets):
    return judged(pd.DataFrame(nets))


def loses_above_a_quarter(m):
    return 50.0 if m > LOST else 0.01


def pairs(exact, centred, learned, noise=0.1):
    """Five seeds of each pair, by their mean gain over the Gaussian on test rows of a seed."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 3, (5, ROWS)).mean(1)
    gains = {"published": exact, "centred": centred, "learned": learned}
    return [
        net(PAIRS, activation=name, seed=seed, rate=rate, nll=(110.0, 105.0, 104 - value + worse),
            gain=value - worse + shared[seed] - shared.mean() + rng.normal(0, noise, ROWS).mean())
        for name, value in gains.items() for seed in range(5)
        for rate, worse in ((2e-3, 0.0), (5e-3, 9.0))
    ]  # fmt: skip


def test_pairs_are_compared_at_their_best_rate_by_seed():
    nets = framed(pairs(2.0, 2.1, 5.0))
    own = phases.pair(nets, "learned")
    assert [*own["seed"]] == list(range(5)) and {*own["rate"]} == {2e-3}
    gap, alone = phases.lead(nets, "learned", "published"), phases.lead(nets, "learned")
    assert gap.value == pytest.approx(3.0, abs=0.1) and gap.se < 0.1 < alone.se
    assert alone.df == 4 and alone.se == pytest.approx(over_splits(own["gain"]))


def over_splits(values):
    """The standard error of a mean over splits of the same 1,797 digits, which overlap."""
    return np.std(values, ddof=1) * math.sqrt(1 / len(values) + 250 / 1297)


def lossy(counts, of=10):
    """Cells of the map, seed by seed and rate by rate, some of which lose mass."""
    return framed([
        net(preprocessing=str(k), seed=seed, rate=rate,
            mass=(0.1, 0.1, 50.0 if k < count else 0.1))
        for rate, found in counts.items() for seed, count in enumerate(found) for k in range(of)
    ])  # fmt: skip


def spared(nets, monkeypatch):
    """The claim that the rate 1 spares mass that the rate 2 loses."""
    monkeypatch.setattr(phases, "SHARES", [("It is spared", {"part": MAP}, "rate", 1, 2)])
    (measured,) = phases._shares(nets)
    return measured


def test_shares_of_lost_mass_are_paired_by_seed(monkeypatch):
    question, found = spared(lossy({2: (9, 5, 7), 1: (6, 3, 3)}), monkeypatch)
    assert found.value == pytest.approx(0.3) and found.df == 2, "seeds are the units, not cells"
    assert found.se == pytest.approx(over_splits([0.3, 0.2, 0.4]))
    assert question.quantity == "share of trainings that lost mass, rate 2 less 1"
    assert question.claim.endswith("by more than 0.1") and question.expected.low == 0.1


@pytest.mark.parametrize(("counts", "verdict"), [
    ((7, 8, 7, 8, 7), "holds"), ((3, 3, 4, 3, 3), "does not hold"),
    ((4, 6, 3, 8, 4), "not decided at this size"),
])  # fmt: skip
def test_a_difference_less_than_what_matters_does_not_hold(counts, verdict, monkeypatch):
    """Of 40 cells 2 lose mass, beside 3 to 8 of the others: less than 0.1 is fewer than 6."""
    (claim,) = decide([spared(lossy({1: [2] * 5, 2: counts}, 40), monkeypatch)])
    assert claim.value > 0 and claim.verdict == verdict


def everything(nets):
    """A whole experiment around pairs: what starts far off loses mass; learned, only sliced."""
    far = {
        (name, objective): of_seeds(
            grid(loses_above_a_quarter, activation=name, objective=objective), range(5)
        )
        for name in phases.ACTIVATIONS for objective in ("dsm 0.3", "ssm")
    }  # fmt: skip
    for key in (("centred", "dsm 0.3"), ("centred", "ssm"), ("learned", "dsm 0.3")):
        far[key] = [{**one, "mass": (0.1, 0.1, 0.1)} for one in far[key]]
    mapped = [one for group in far.values() for one in group]
    return framed([*mapped, *nets])


def test_claims_are_judged_by_intervals():
    conclusion = phases.conclude(everything(pairs(2.0, 2.1, 5.0)))
    assert len(conclusion.claims) == 9
    assert not [c for c in conclusion.claims if c.expected in ("more than 0", "less than 0")]
    verdict = {claim.claim: claim.verdict for claim in conclusion.claims}
    below = "With the {} activation, DSM alone ends more than 1 nat below the Gaussian"
    assert verdict[below.format("learned")] == "holds"
    same = next(c for c in conclusion.claims if "as good as exact likelihood" in c.claim)
    assert same.verdict == "holds" and (same.expected, same.units) == ("-1 to 1", "nats")
    spared = [c for c in conclusion.claims if "mass" in c.quantity]
    assert [c.value for c in spared] == [0.4, 0.4, 0.4, 0, 0]
    assert [c.verdict for c in spared] == 3 * ["holds"] + 2 * ["does not hold"]
    worse = phases.conclude(everything(pairs(2.0, -9.0, 1.0)))
    by_text = {claim.claim: claim for claim in worse.claims}
    centred = by_text[below.format("centred")]
    assert centred.verdict == "does not hold" and centred.value == pytest.approx(-9, abs=1)
    small = phases.conclude(everything(pairs(2.0, 0.5, 5.0)))
    (beaten,) = [claim for claim in small.claims if claim.claim == centred.claim]
    assert beaten.verdict == "not decided at this size", "more than 0 is not more than 1"
    wide = phases.conclude(everything(pairs(2.0, 0.1, 5.0, noise=9.0)))
    undecided = {claim.claim: claim.verdict for claim in wide.claims}
    assert undecided[centred.claim] == "not decided at this size"


def test_the_figure_shows_every_net():
    found = figure(everything(pairs(2.0, 2.1, 5.0)))
    panels = [axis for axis in found.axes if axis.get_label() != "<colorbar>"]
    assert len(panels) == 3
    assert panels[0].collections[0].get_array().count() == 80, "the published net's squares"


def test_a_square_is_the_mean_over_seeds_black_if_one_broke():
    squares = [("a", 1, 10.0), ("a", 2, math.inf), ("b", 1, 1.0), ("b", 2, 9.0)]
    nets = [
        net(
            activation=name, start=start, rate=rate, seed=seed, mass=(9.0, 9.0, m if seed else 0.1)
        )
        for name, (start, rate, m), seed in product(phases.ACTIVATIONS, squares, (0, 1))
    ]
    axis = figure(framed(nets)).axes[0]
    shade = axis.collections[0].get_array()
    assert shade.mask.tolist() == [[False, True], [False, False]]
    assert shade[0, 0] == pytest.approx(0) and shade[1, 0] == pytest.approx(-0.5)
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["whitened  a", "whitened  b"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    prepare("digits", folder, rows=300, validation=60, test=40)
    return folder


SHORT = StackConfig(
    objective=Dsm(sigma=0.3), preprocessings=("plain",),
    starts=(PLAIN, PUBLISHED), rates=(1e-3, 1e-2), seed=3, steps=4, looks=(0, 2, 4),
)  # fmt: skip


def test_a_stack_is_reproducible_and_its_seeds_differ(digits):
    nets, again = (train(SHORT, Dataset(digits)) for _ in range(2))
    pd.testing.assert_frame_equal(nets, again, check_exact=True)
    assert len(nets) == 4 and np.isfinite(nets["gain"]).all()
    other = train(SHORT.model_copy(update={"seed": 0}), Dataset(digits))
    assert len({nll[-1] for nll in (*nets["nll"], *other["nll"])}) == 8


def test_a_net_does_not_depend_on_the_other_preprocessing(digits):
    both = SHORT.model_copy(update={"preprocessings": ("whitened", "plain")})
    nets = train(both, Dataset(digits)).query("preprocessing == 'plain'")
    for found, alone in zip(nets["nll"], train(SHORT, Dataset(digits))["nll"], strict=True):
        assert found == pytest.approx(alone, rel=1e-5)


def test_exact_likelihood_in_a_stack_falls(digits):
    exact = SHORT.model_copy(update={"objective": Likelihood(), "rates": (1e-2,)})
    assert all(nll[-1] < nll[0] for nll in train(exact, Dataset(digits))["nll"])


@pytest.mark.system
def test_rows_and_the_page_of_a_small_run(digits, tmp_path):
    finished = []
    parts = [(MAP, "dsm"), (MAP, "ssm"), (PAIRS, "dsm")]
    for activation in phases.ACTIVATIONS:
        for (part, objective), seed in product(parts, (0, 3)):
            changes = {
                "part": part,
                "activation": activation,
                "rates": (phases.SLOW, phases.FAST),
                "seed": seed,
            }
            looks = (0, EARLY, 26)
            changes |= {"preprocessings": ("whitened",), "steps": looks[-1], "looks": looks}
            changes |= {"objective": Objective.of(objective)}
            config = SHORT.model_copy(update=changes)
            folder = tmp_path / f"{part}-{activation}-{objective}-{seed}"
            folder.mkdir()
            stack(config, digits, run=Untracked(folder))
            labels = {"part": part, "f": activation, "objective": config.objective_label}
            cell = Cell(labels, config, seed, PHASES.all_cells(CONFIG)[0].data)
            finished.append(Finished(cell, [folder]))
    assert [path.name for path in finished[0].folders[0].iterdir()] == [NETS]
    rows = PHASES.rows(finished)
    assert len(rows) == 3 * 3 * 2 and {row["seed"] for row in rows} == {0, 3}
    nets = {row["study/nets"] for row in rows if row["labels"]["part"] == PAIRS}
    assert nets == {1}, "that of the best start and rate"
    conclusion = PHASES.conclude(finished)
    assert len(conclusion.claims) == 9
    output = tmp_path / "output"
    output.mkdir()
    Result(
        title="phases", conclusion=conclusion, headline=headline(CONFIG, rows),
        sections=plots(PHASES.figures(rows, finished)), values={"rows": rows},
    ).save(CONFIG, Untracked(output))  # fmt: skip
    assert conclusion.claims[0].claim in (output / "report.html").read_text()
    assert len(json.loads((output / "summary.json").read_text())["claims"]) == 9


matplotlib.use("Agg")
