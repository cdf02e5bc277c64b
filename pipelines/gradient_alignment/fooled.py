"""Pictures of fooled classifiers: gradients that show a chosen pattern beside the baseline's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from pipelines.gradient_alignment.models import BASELINE
from pipelines.reporting.style import Captioned, panels, show_tiles, signed

Arrays = Mapping[str, np.ndarray]  # Images, gradients and predictions of a model

ACROSS = 6  # Test images

# Size of a cell, and width of the column of names, in inches
CELL, NAMES = 1.15, 2.3


@dataclass(frozen=True)
class Fooling:
    """A picture: gradients of one kind, of the baseline and of fooled classifiers below it."""

    title: str  #: What a reader sees first
    kind: str  #: The name of the array of gradients
    rows: Mapping[str, str]  #: The name on the left, by model
    caption: str


FOOLED = {
    "fooled": Fooling(
        "Same predictions, other gradients",
        "gradients",
        {
            BASELINE: "a classifier:\ngradient of its logit",
            "fool-shift": "the same classifier,\n100 t·x added to\nevery logit",
            "fool-weights": "another one, with the\nface trained into\nits weights",
        },
        "Two classifiers with the same predictions, written above each gradient. The gradients of "
        "the second show a chosen pattern t, a face, because 100 t·x is added to every logit: "
        "softmax does not see it. The third is trained to show the face. Gradients of the true "
        "class's logit, each on its own scale: red raises the logit, blue lowers it.",
    ),
    "rippled": Fooling(
        "Same loss within 0.002 nats, other gradients of the loss",
        "loss",
        {
            BASELINE: "a classifier:\ngradient of its loss",
            "fool-shift": "the same classifier,\n100 t·x added to\nevery logit",
            "fool-ripple": "the same classifier,\na wave of 0.001 nats\non each logit",
        },
        "Gradients of the loss, each on its own scale, and predictions above. A shift of all "
        "logits leaves them. Waves of a height of 0.001 nats, one for each logit, change a loss "
        "by less than 0.002 nats, but its gradient to a face or its negative.",
    ),
}


def fooled_pictures(arrays: Mapping[str, Arrays], shape: Sequence[int]) -> dict[str, Captioned]:
    """Returns the figures whose fooled models were measured, by name, of images with a shape."""
    return {
        name: _draw(fooling, arrays, shape)
        for name, fooling in FOOLED.items()
        if len(_measured(fooling, arrays)) > 1
    }


def _measured(fooling: Fooling, arrays: Mapping[str, Arrays]) -> list[str]:
    """Returns the models of a picture that have its gradients; none without the baseline."""
    models = [model for model in fooling.rows if fooling.kind in arrays.get(model, ())]
    return models if BASELINE in models else []


def _draw(fooling: Fooling, arrays: Mapping[str, Arrays], shape: Sequence[int]) -> Captioned:
    models = _measured(fooling, arrays)
    across = min(ACROSS, len(arrays[BASELINE]["images"]))
    figure, axes = panels(
        1 + across,
        NAMES + CELL * across,
        1.25 * CELL * (1 + len(models)),
        down=1 + len(models),
        squeeze=False,
        width_ratios=[NAMES, *[CELL] * across],
    )
    figure.suptitle(fooling.title, fontsize=13, fontweight="bold")
    _name(axes[0, 0], "image")
    for axis, image in zip(axes[0, 1:], arrays[BASELINE]["images"], strict=False):
        show_tiles(axis, image[None], shape, 1)
    for row, model in zip(axes[1:], models, strict=True):
        _name(row[0], fooling.rows[model])
        _gradients(row[1:], arrays[model], fooling.kind, shape)
    return figure, fooling.caption


def _name(axis: Axes, text: str) -> None:
    axis.axis("off")
    axis.text(0.95, 0.5, text, ha="right", va="center", transform=axis.transAxes)


def _gradients(axes: Sequence[Axes], model: Arrays, kind: str, shape: Sequence[int]) -> None:
    """Draws the gradients of a model at each image, below its prediction."""
    for index, axis in enumerate(axes):
        picture = signed(model[kind][index : index + 1], shape, 1)
        axis.imshow(picture, cmap="RdBu_r", vmin=0, vmax=1)
        axis.axis("off")
        label, share = model["predicted"][index], model["probability"][index]
        axis.set_title(f"says {label} ({share:.1%})", fontsize=8)
