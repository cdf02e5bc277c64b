"""Unnormalized log-densities trained without their normalizer.

    >>> flow = ebflow.fit(x, steps=20)                  # rows or images
    >>> log_p = flow.log_prob(x)                        # nats, exact
    >>> samples = flow.sample((1000,))
    >>> score = flow.score(x)
    >>> flow = ebflow.fit(x, context=c, steps=20)       # the density given a context
    >>> flow(c[0]).sample((10,)).shape
    torch.Size([10, 3])

Public names and modules are attributes of this module, imported at their first use.
"""

__version__ = "0.2.0"

from importlib import import_module

# The module of every public name.
MODULES = {
    "Anchor": "anchor", "EnergyFunction": "density", "Evaluation": "density", "Flow": "flow",
    "FlowDensity": "sklearn", "FlowDetector": "detector", "FlowDistribution": "distribution",
    "GaussianMixture": "bases", "History": "history", "LogDensity": "density", "Loss": "loss",
    "LossModule": "loss", "Progress": "loss", "Report": "history", "RowGenerator": "randomness",
    "Trainer": "train", "check": "checks", "evaluate": "evaluation", "fit": "fitting",
    "fit_mixture": "mixtures", "impute": "imputation", "load": "checkpoint",
    "log_probs": "evaluation", "refine": "refinement", "save": "checkpoint",
}  # fmt: skip

__all__ = [*MODULES]


def __getattr__(name: str) -> object:
    """Imports a public name, or a module, at its first use: ``import ebflow`` needs no torch."""
    module = f"ebflow.{MODULES.get(name, name)}"
    try:
        value = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # of a library that the module imports
            raise
        raise AttributeError(f"module 'ebflow' has no attribute {name!r}") from None
    if name in MODULES:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
