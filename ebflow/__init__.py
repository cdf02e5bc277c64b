"""Unnormalized log-densities trained without their normalizer.

    >>> flow = ebflow.fit(x, steps=20)                  # rows or images
    >>> log_p = flow.log_prob(x)                        # nats, exact
    >>> samples = flow.sample((1000,))
    >>> score = flow.score(x)
    >>> flow = ebflow.fit(x, context=c, steps=20)       # the density given a context
    >>> flow(c[0]).sample((10,)).shape
    torch.Size([10, 3])

Everything public is an attribute of this module, imported when it is first asked for.
"""

__version__ = "0.2.0"

__all__ = ["Anchor", "EnergyFunction", "Evaluation", "Flow", "FlowDistribution",
           "GaussianMixture", "History", "LogDensity", "Loss", "LossModule", "Progress",
           "RowGenerator", "Trainer", "alignment", "anchor", "architectures", "bases",
           "bijections", "chains", "checkpoint", "complexity", "density", "distribution",
           "errors", "evaluate", "evaluation", "files", "fit", "fit_mixture",
           "fitting", "flow", "history", "imputation", "inference", "load", "log_probs", "loss",
           "mixtures", "networks", "objectives", "preprocessing", "randomness", "recipes",
           "sampling", "save", "sklearn", "tables", "toy", "train"]  # fmt: skip

from importlib import import_module

_HOMES = {
    "Anchor": "anchor",
    "EnergyFunction": "density",
    "Evaluation": "density",
    "Flow": "flow",
    "FlowDistribution": "distribution",
    "GaussianMixture": "bases",
    "History": "history",
    "LogDensity": "density",
    "Loss": "loss",
    "LossModule": "loss",
    "Progress": "loss",
    "RowGenerator": "randomness",
    "Trainer": "train",
    "evaluate": "evaluation",
    "fit": "fitting",
    "fit_mixture": "mixtures",
    "load": "checkpoint",
    "log_probs": "evaluation",
    "save": "checkpoint",
}
"""The modules of the names that are not modules themselves."""


def __getattr__(name: str) -> object:
    """Imports what is asked for when it is asked for: ``import ebflow`` needs no torch."""
    if name in _HOMES:
        found = getattr(import_module(f"ebflow.{_HOMES[name]}"), name)
    elif name in __all__:
        found = import_module(f"ebflow.{name}")
    else:
        raise AttributeError(f"module 'ebflow' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
