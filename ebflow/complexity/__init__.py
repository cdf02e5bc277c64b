"""The number of samples that learning a score needs: instances, errors, samplers.

Distributions that resemble data have exact scores at every noise level. The errors of any
denoiser of them can be measured:

    >>> truth = ebflow.complexity.load("digits").with_rare(0.005)
    >>> x = truth.sample(3, sigma=0.2, generator=torch.Generator().manual_seed(0))
    >>> truth.score(x, 0.2).shape, truth.denoise(x, 0.2).shape, truth.log_prob(x, 0.2).shape
    (torch.Size([3, 64]), torch.Size([3, 64]), torch.Size([3]))

The names below are imported at their first use.
"""

__all__ = ["FactorMixture", "Truth", "denoising_errors", "fit_factors", "fit_truth", "load",
           "save"]  # fmt: skip

from importlib import import_module

MODULES = {
    "FactorMixture": "factors",
    "Truth": "truths",
    "denoising_errors": "errors",
    "fit_factors": "factors",
    "fit_truth": "truths",
    "load": "truths",
    "save": "truths",
}


def __getattr__(name: str) -> object:
    """Imports a name at its first use: closed forms need no torch."""
    if name not in MODULES:
        raise AttributeError(f"module 'ebflow.complexity' has no attribute {name!r}")
    return getattr(import_module(f"ebflow.complexity.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
