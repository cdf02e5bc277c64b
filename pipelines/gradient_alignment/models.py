"""The models of the study, and the scale, seeds and trainings of a run."""

from collections.abc import Sequence
from typing import NamedTuple

from ebflow.alignment.regularizers import equivalent_strength
from ebflow.errors import BadInput
from pipelines.config import Dense, Likelihood, PreprocessConfig, TrainConfig, Training
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    ClassifierConfig,
    ClassifierOptions,
    CustomConfig,
    FlowConfig,
    MeasureConfig,
    NetworkConfig,
    RegularizerConfig,
    Shift,
    SweepConfig,
)
from pipelines.gradient_alignment.sweep import Cell, cells

BASELINE = "baseline"

# The baseline with a class-blind density on every logit, by the name of the shift.
BLIND = {"gaussian": "blind-gaussian", "flow": "blind-flow"}

SEARCHED = ("score", "paper-score")  # The models beside a search: its centre, and the paper's

ALWAYS = (BASELINE, *BLIND.values())  # The models that every run has

CLIP = 5.0


def control(score: RegularizerConfig) -> RegularizerConfig:
    """Returns the gradient-norm penalty of the same strength, the control of score matching."""
    weight = equivalent_strength(**score.options(equivalent_strength))
    return RegularizerConfig(
        name="gnorm", weight=weight, warmup=score.warmup, centred=score.centred
    )


class Model(NamedTuple):
    """A model of the study: its description, its training, and the shift of its logits.

    In ``MODELS`` a training has only the fields that differ from the scale's.
    """

    about: str
    classifier: ClassifierConfig = ClassifierConfig()
    shift: Shift = "none"
    cell: Cell | None = None  # of a search


def _trained(about: str, regularizer: RegularizerConfig, **training: float) -> Model:
    return Model(about, ClassifierConfig(regularizer=regularizer, **training))


def _paper(name: str, weight: float, step: float) -> RegularizerConfig:
    """Returns a regularizer with the one-sided estimator, as published."""
    options = {"estimator": "taylor", "directions": "gaussian"}
    return RegularizerConfig(name=name, weight=weight, step=step, **options)


# The paper and its code disagree on every weight. The paper gives neither σ nor K: those of the
# code are used. The recommended settings come from the study's own measurements.
# The penalty of score matching is at least −1 / (4 μ) = −250, which 64 values nearly reach.
# Residual networks of colour images forget the classes at λ = 0.1, where that is 25 nats.
SCORE = RegularizerConfig(name="score", weight=0.1, floor=1.5, warmup=0.1)
CENTRED = SCORE.changed(centred=True)
ANTI = RegularizerConfig(name="anti", weight=1e-2, warmup=0.1)
PAPER_SCORE = _paper("score", weight=1e-3, step=0.01)
FOOL = RegularizerConfig(name="fool", weight=1e-2)
COLOUR_SCORE = SCORE.changed(weight=1e-2)
CODE_SCORE = _paper("score", weight=1e-5, step=0.01)

# Models for colour images and residual networks.
COLOUR = ("colour-score", "colour-control")

# All models by name, in the order of tables.
MODELS = {
    BASELINE: Model("cross-entropy alone"),
    BLIND["gaussian"]: Model("the baseline and log p of a class-blind Gaussian on every logit",
                             shift="gaussian"),
    BLIND["flow"]: Model("the baseline and log p of a class-blind flow on every logit",
                         shift="flow"),
    "score": _trained("score matching, recommended", SCORE, clip=CLIP),
    "score-free": _trained("the same without the stability penalty",
                           SCORE.changed(stability=0.0), clip=CLIP),
    "score-control": _trained("gradient norm at score's strength", control(SCORE), clip=CLIP),
    "centred": _trained("score matching of the logit less the mean over classes", CENTRED,
                        clip=CLIP),
    "centred-control": _trained("gradient norm of that at the same strength", control(CENTRED),
                                clip=CLIP),
    "gnorm": _trained("gradient norm, recommended", RegularizerConfig(name="gnorm", weight=1e-2)),
    "anti": _trained("anti-score-matching, recommended", ANTI),
    "paper-score": _trained("score matching, paper", PAPER_SCORE),
    "paper-control": _trained("gradient norm at paper-score's strength", control(PAPER_SCORE)),
    "paper-gnorm": _trained("gradient norm, paper", RegularizerConfig(name="gnorm", weight=1e-3)),
    "paper-anti": _trained("anti-score-matching, paper", _paper("anti", 1e-4, 0.001)),
    "code-score": _trained("score matching, official code", CODE_SCORE),
    "code-control": _trained("gradient norm at code-score's strength", control(CODE_SCORE)),
    "fool-shift": Model("the baseline and 100 t·x on every logit, for a pattern t",
                        shift="linear"),
    "fool-quadratic": Model("the baseline and −50 ‖x − t‖² on every logit", shift="quadratic"),
    "fool-sine": Model("the baseline and 50 sin(2π t·x) on every logit", shift="sine"),
    "fool-weights": _trained("the pattern t trained into the logit-gradient", FOOL),
    "fool-ripple": Model("the baseline and low waves, one for each logit", shift="ripple"),
    "colour-score": _trained("score matching, recommended for 3,072 values", COLOUR_SCORE,
                             clip=CLIP),
    "colour-control": _trained("gradient norm at colour-score's strength", control(COLOUR_SCORE),
                               clip=CLIP),
    "collapse": _trained("score matching without noise and penalty, λ = 1",
                         RegularizerConfig(name="score", weight=1.0, stability=0.0), noise=0.0),
}  # fmt: skip

# A flow of rows that starts near the Gaussian of its rows.
DENSE = Training(
    preprocess=PreprocessConfig(logit=None, shrinkage=0.1),
    model=Dense(depth=2, activation="spline"),
    objective=Likelihood(name="lazy_ml"),
    train=TrainConfig(lr=4e-3, steps=1000, validate_every=50),
)


# The paper's training: ResNet-18, 200 epochs of gradient descent with momentum, a tenth of the
# rate after 100 epochs and again after 150. The paper adds no noise to images. It crops and
# mirrors them, which is an option, because mirrored digits are none.
PUBLISHED = ClassifierConfig(
    network=NetworkConfig(name="resnet18"),
    epochs=200,
    batch_size=128,
    optimizer="sgd",
    lr=0.1,
    weight_decay=5e-4,
    schedule="steps",
)


class Scale(NamedTuple):
    """The size of a study."""

    models: tuple[str, ...] = tuple(name for name in MODELS if name not in COLOUR)  # their names
    seeds: int = 6
    classifier: ClassifierConfig = ClassifierConfig(epochs=80)  # the baseline's
    training: Training = DENSE  # of the flows
    measure: MeasureConfig = MeasureConfig()
    sweep: SweepConfig = SweepConfig(
        weights=(0.03, 0.3), stabilities=(1e-4, 1e-2), steps=(0.01, 0.1), noises=(0.05, 0.2)
    )


SCALES: dict[str, Scale] = {
    "smoke": Scale(
        (
            *ALWAYS,
            "score",
            "score-free",
            "gnorm",
            "anti",
            "paper-score",
            "paper-gnorm",
            "fool-shift",
            "fool-weights",
            "fool-ripple",
        ),
        1,
        ClassifierConfig(epochs=20),
        DENSE.changed(train={"steps": 60}),
        MeasureConfig(points=200, samples=25, ascent=200),
        SweepConfig(weights=(0.03, 0.3)),
    ),
    "cpu": Scale(),
    "full": Scale(seeds=3, classifier=PUBLISHED),
}


def models(config: AlignmentConfig) -> dict[str, Model]:
    """Returns the models of a run with its seed by name, the baseline first.

    Raises:
        BadInput: If the name of a model is unknown, or options of ``custom`` are incomplete.
    """
    names = config.models or SCALES[config.scale].models
    for name in names:
        if name not in MODELS:
            expected = f"some of {', '.join(MODELS)}"
            raise BadInput(option="--models", found=repr(name), expected=expected)
    searched = _searched(config)
    chosen = (*always(config), *names, *(SEARCHED if searched else ()))
    some = {name: model for name, model in MODELS.items() if name in chosen}
    if config.reference.kind == "none":
        _without_flow(config)
        some.pop(BLIND["flow"], None)
    plain, clip = _classifier(config), config.classifier.clip
    some |= searched | _custom(config)
    return {name: _completed(model, plain, clip) for name, model in some.items()}


def _searched(config: AlignmentConfig) -> dict[str, Model]:
    """Returns the models of a search: that of the options, or the scale's without ``--models``."""
    sweep = config.sweep
    if sweep == SweepConfig():
        if config.models or config.reference.kind == "none":
            return {}
        sweep = SCALES[config.scale].sweep
    centre = Cell(SCORE.weight, SCORE.stability, SCORE.step, config.noise)
    return {cell.name: _of_cell(cell) for cell in cells(sweep, centre)}


def _of_cell(cell: Cell) -> Model:
    penalty = SCORE.changed(weight=cell.weight, stability=cell.stability, step=cell.step)
    return _trained(cell.about, penalty, clip=CLIP, noise=cell.noise)._replace(cell=cell)


def always(config: AlignmentConfig) -> tuple[str, ...]:
    """Returns the models that a run has whatever its models are."""
    return ALWAYS if config.reference.kind == "flows" else (BASELINE,)


def _without_flow(config: AlignmentConfig) -> None:
    """Raises BadInput if a flow is asked for that a study without a reference does not train."""
    if config.models and BLIND["flow"] in config.models:
        raise BadInput(
            option="--models", found=BLIND["flow"],
            expected="models without a flow, because --reference.kind is none",
        )  # fmt: skip


def _completed(model: Model, plain: ClassifierConfig, clip: float | None) -> Model:
    """Returns the model; its training has all fields of the plain one that it leaves open."""
    own = model.classifier.model_fields_set
    changes = {field: getattr(model.classifier, field) for field in own}
    classifier = plain.changed(**changes)
    if clip is not None:
        classifier = classifier.changed(clip=clip)
    return model._replace(classifier=classifier)


def _custom(config: AlignmentConfig) -> dict[str, Model]:
    """Returns the model of the user's own regularizer, if any, and its control."""
    own, found = config.custom, {}
    if own.name == "none":
        if own != CustomConfig():
            raise BadInput(
                option="--custom.name", found="none beside other options of custom",
                expected="score, anti, gnorm or fool",
            )  # fmt: skip
        return found
    if not own.weight:
        raise BadInput(option="--custom.weight", found=0, expected="a number above 0")
    training = {
        field: value for field in ("clip", "noise") if (value := getattr(own, field)) is not None
    }
    found["custom"] = _trained("your regularizer", own.regularizer, **training)
    if own.name == "score":
        about = "gradient norm at custom's strength"
        found["custom-control"] = _trained(about, control(own.regularizer), **training)
    return found


def _classifier(config: AlignmentConfig) -> ClassifierConfig:
    """Returns the training of the scale without a regularizer, as the options change it."""
    plain, asked = SCALES[config.scale].classifier, config.classifier
    changes = asked.model_dump(exclude={"network", "hidden", "clip"}, exclude_none=True)
    network = _network(plain.network, asked)
    seeded = {"noise": config.noise, "smoothing": config.noise, "seed": config.seed}
    return plain.changed(network=network, **changes, **seeded)


def _network(plain: NetworkConfig, asked: ClassifierOptions) -> NetworkConfig:
    """Returns the network; of another architecture than the scale's, its own width."""
    if asked.network not in (None, plain.name):
        plain = NetworkConfig(name=asked.network)
    return plain if asked.hidden is None else plain.changed(hidden=asked.hidden)


def replicates(config: AlignmentConfig) -> list[AlignmentConfig]:
    """Returns the study of each seed, with its own split."""
    split = config.data.seed
    seeds = range(config.seed, config.seed + (config.seeds or SCALES[config.scale].seeds))
    return [config.changed(seed=k, data={"seed": split + k}) for k in seeds]


def judge(config: AlignmentConfig, shape: Sequence[int]) -> ClassifierConfig:
    """Returns the independently trained judge, which has another architecture.

    It is a convolutional network without residual blocks if the examples are images and the
    classifiers are of another kind, else a perceptron: a narrower one beside perceptrons.
    """
    plain = _classifier(config)
    images = len(shape) in (2, 3) and all(side % 4 == 0 for side in shape[-2:])
    if images and plain.network.name != "cnn":
        network = NetworkConfig(name="cnn", hidden=16)
    else:
        network = NetworkConfig(hidden=64) if plain.network.name == "mlp" else NetworkConfig()
    return plain.changed(seed=1000 + config.seed, network=network)


def flow_config(config: AlignmentConfig, label: int | None = None) -> FlowConfig:
    """Returns the training of the flow of a class; None: of all rows."""
    training = SCALES[config.scale].training.changed(seed=config.seed)
    copies = config.reference.copies
    return FlowConfig(label=label, noise=config.noise, copies=copies, training=training)


def measuring(config: AlignmentConfig) -> MeasureConfig:
    """Returns the measurements of a run, whose points are those of the reference."""
    sizes = config.measure.model_dump(exclude_none=True)
    settings = SCALES[config.scale].measure.changed(**sizes)
    return settings.changed(noise=config.noise, seed=config.seed)
