"""The line that tells how a flow was trained."""

from pipelines.config import (
    AnchorConfig,
    ObjectiveConfig,
    PreprocessConfig,
    StabiliseConfig,
    TrainConfig,
    Training,
    recipes,
)
from pipelines.reporting.method import method


def test_the_default_recipe():
    assert method(recipes.digits()) == (
        "1 × lazy_ml (normaliser refreshed every 100 steps, sooner at drift 0.2); "
        "whitened data; dense flow (depth 3, activation spline); "
        "adam 0.002 cosine, batch 128, EMA 0.999"
    )


def test_nothing_that_is_added_is_hidden():
    extra = StabiliseConfig(low_energy=0.1, latent_mean=2, finish=0.25)
    line = method(Training(objective=ObjectiveConfig(name="ssm"), stabilise=extra))
    assert line.startswith("0.01 × ssm + 1 × anchor")
    for part in ("0.1 × energy", "2 × latent mean", "the last 25% by ml"):
        assert part in line


def test_steps_without_scores_are_told():
    line = method(Training(objective=ObjectiveConfig(name="ssm", every=4)))
    assert line.startswith("0.01 × ssm (in one of 4 steps) + 1 × anchor")
    line = method(Training(objective=ObjectiveConfig(name="ssm_vr", slices=3, every=2)))
    assert line.startswith("0.01 × ssm_vr (3 slices, in one of 2 steps) + 1 × anchor")
    line = method(Training(objective=ObjectiveConfig(name="fd_ssm", epsilon=0.5)))
    assert line.startswith("0.01 × fd_ssm (ε = 0.5) + 1 × anchor")


def test_the_optimisation_is_told():
    train = TrainConfig(
        optimizer="rmsprop", lr=1e-4, schedule="multistep", milestones=49, gamma=0.95,
        weight_decay=1e-5, clip=5.0,
    )  # fmt: skip
    assert method(Training(train=train)).endswith(
        "rmsprop 0.0001 multistep (49 × 0.95), weight decay 1e-05, gradient at most 5, "
        "batch 128, EMA 0.999"
    )
    falling = TrainConfig(schedule="multistep", milestones=49, gamma=0.95, epoch=500)
    assert "multistep (49 × 0.95, every 500 steps)" in method(Training(train=falling))
    scaled = TrainConfig(lr=1e-3, lr_width=784)
    assert "adam 0.001 at D = 784 cosine" in method(Training(train=scaled))


def test_an_objective_alone_has_weight_one():
    alone = Training(objective=ObjectiveConfig(name="dsm"), anchor=AnchorConfig(weight=0))
    assert method(alone).startswith("1 × dsm (σ = 0.3);")
    lazy = Training(objective=ObjectiveConfig(name="lazy_ml"))
    assert method(lazy).startswith("1 × lazy_ml (normaliser refreshed every 100 steps")


def test_what_is_done_to_the_data_is_told():
    line = method(
        Training(
            preprocess=PreprocessConfig(match_after=False, extended=True),
            train=TrainConfig(augment="stl10", noise=0.5),
        )
    )
    expected = (
        "whitened data, extended logit, scores matched before preprocessing, "
        "training images changed as by stl10, training rows with noise 0.5"
    )
    assert expected in line.split("; ")
