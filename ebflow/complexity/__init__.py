"""How many samples a score needs: instances, learners, errors, samplers, and what is fitted.

Laws that look like data, with exact scores at every noise, and the errors of any denoiser of them:

    >>> truth = ebflow.complexity.load("digits").with_rare(0.005)
    >>> x = truth.sample(3, sigma=0.2, generator=torch.Generator().manual_seed(0))
    >>> truth.score(x, 0.2).shape, truth.denoise(x, 0.2).shape, truth.log_prob(x, 0.2).shape
    (torch.Size([3, 64]), torch.Size([3, 64]), torch.Size([3]))
"""

__all__ = [
    "FactorMixture",
    "Truth",
    "denoising_errors",
    "fit_factors",
    "fit_truth",
    "load",
    "save",
]

from .errors import denoising_errors
from .factors import FactorMixture, fit_factors
from .truths import Truth, fit_truth, load, save
