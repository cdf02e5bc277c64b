"""Slow references: what the library computes, by autograd and determinants alone."""

import math

import torch


def total(t, dims=1):
    """Sums all but the last ``dims`` leading dimensions away from the right."""
    return t.flatten(dims).sum(-1) if t.ndim > dims else t


def carried(f):
    """Returns the map of a flow, or of its distribution; any other function as it is."""
    return getattr(f, "to_latent", f)


def leaf(x):
    """Returns ``x`` as something to differentiate by."""
    return x if x.requires_grad else x.detach().clone().requires_grad_()


def jacobian(f, x):
    """Returns the Jacobian of a function of batches, with shape (B, D, D), differentiable."""
    x = leaf(x)
    y = carried(f)(x).flatten(1)
    rows = [
        torch.autograd.grad(y[:, j].sum(), x, create_graph=True)[0].flatten(1)
        for j in range(y.shape[1])
    ]
    return torch.stack(rows, 1)


def log_det(f, x):
    """Returns log |det J| with shape (B,)."""
    return torch.linalg.slogdet(jacobian(f, x))[1]


def log_normal(u):
    """Returns the log-density of N(0, I) with shape (B,)."""
    u = u.flatten(1)
    return torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(1)


def log_prob(f, x, base=log_normal):
    """Returns the change of variables from a base through ``f``, differentiable in x."""
    x = leaf(x)
    return base(carried(f)(x)) + log_det(f, x)


def score(log_p, x):
    """Returns x as a leaf, and the gradient of a log-density there."""
    x = leaf(x)
    return x, torch.autograd.grad(log_p(x).sum(), x, create_graph=True)[0]


def hessian(log_p, x):
    """Returns the score with shape (B, D) and the Hessian with shape (B, D, D)."""
    x, s = score(log_p, x)
    s = s.flatten(1)
    rows = [
        torch.autograd.grad(s[:, j].sum(), x, create_graph=True)[0].flatten(1)
        for j in range(s.shape[1])
    ]
    return s, torch.stack(rows, 1)


def along(curve, batch):
    """Returns value, first and second derivative at t = 0 of a curve (B,) -> (B, *)."""
    t = torch.zeros(batch, requires_grad=True)
    value = curve(t)
    flat = value.reshape(batch, -1)
    first, second = [], []
    for j in range(flat.shape[1] if flat.requires_grad else 0):
        d1 = torch.autograd.grad(flat[:, j].sum(), t, create_graph=True, allow_unused=True)[0]
        d1 = torch.zeros(batch) if d1 is None else d1
        d2 = None
        if d1.requires_grad:
            d2 = torch.autograd.grad(d1.sum(), t, create_graph=True, allow_unused=True)[0]
        first.append(d1)
        second.append(torch.zeros(batch) if d2 is None else d2)
    if not first:  # it does not depend on t
        return value, torch.zeros_like(value), torch.zeros_like(value)
    return value, *(torch.stack(d, 1).view(value.shape) for d in (first, second))


def gradients(value, parameters):
    """Returns the gradients of a scalar by parameters, zeros where there is none."""
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
    ]


def two_sided(false_alarm, tests=1):
    """Returns the normal quantile that ``tests`` z-scores exceed at this rate, by Bonferroni."""
    tail = torch.tensor(1 - false_alarm / (2 * tests))
    return float(math.sqrt(2) * torch.erfinv(2 * tail - 1))
