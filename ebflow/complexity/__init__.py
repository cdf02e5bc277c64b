"""The number of samples that learning a score needs: instances, errors, samplers.

Distributions that resemble data have exact scores at every noise level. The errors of any
denoiser of them can be measured:

    >>> from ebflow.complexity.truths import load
    >>> truth = load("digits").with_rare(0.005)
    >>> x = truth.sample(3, sigma=0.2, generator=torch.Generator().manual_seed(0))
    >>> truth.score(x, 0.2).shape, truth.denoise(x, 0.2).shape, truth.log_prob(x, 0.2).shape
    (torch.Size([3, 64]), torch.Size([3, 64]), torch.Size([3]))
"""
