"""nanoflow: a normalizing flow in one file, trained without log-determinants of its matrices.

A normalizing flow is an invertible network f that maps data to independent standard normals. Let f
alternate free matrices W with learned increasing functions a of every element. Then

    log p(x) = -E(x) - log Z,   E(x) = -log N(f(x)) - sum of log a',   log Z = -sum of log |det W|.

For D pixels E costs O(D^2), and only log Z costs O(D^3). But log Z does not depend on x. So
  * the score d log p / dx = -dE/dx, which score matching trains, does not contain log Z;
  * the likelihood needs only its gradient, -W^-T. It changes slowly: we refresh it now and then.

`python nanoflow.py` trains on digits by maximum likelihood, `python nanoflow.py dsm` by denoising
score matching beside it. Both print samples, and last the negative log-likelihood of test images.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267. The paper has one fixed function in place of the learned ones.
"""

import math
import sys
import time

import torch
from sklearn.datasets import load_digits
from torch import nn

STEPS, BATCH, RATE = 6000, 128, 5e-3
REFRESH = 10  # Steps between two inversions of the matrices
SIGMA = 0.3  # The noise of denoising score matching
LEVELS = 17  # Pixels have the values 0, 1, ..., 16


class Spline(nn.Module):
    """A learned increasing function of every element, the identity at first.

    It is a cubic spline on [-reach, reach] and a line outside. Its slope is a quadratic B-spline
    with positive coefficients, so it increases.
    """

    def __init__(self, size, cells=16, reach=4.0):
        super().__init__()
        self.log_slopes = nn.Parameter(torch.zeros(size, cells))
        self.size, self.cells, self.reach = size, cells, reach

    def forward(self, x):
        """Returns the values and the slopes at x, both (B, D)."""
        width = 2 * self.reach / self.cells
        s = self.log_slopes.exp()
        s = torch.cat([s[:, :1], s, s[:, -1:]], 1)  # each cell sees three of these coefficients
        rises = (s[:, :-2] + 4 * s[:, 1:-1] + s[:, 2:]) * width / 6
        knots = torch.cat([torch.zeros_like(s[:, :1]), rises.cumsum(1)], 1)
        knots = knots - knots[:, self.cells // 2, None]  # 0 stays 0
        inside = x.clamp(-self.reach, self.reach)
        place = inside / width + self.cells / 2
        cell, element = place.detach().long().clamp(max=self.cells - 1), torch.arange(self.size)
        r, q = place - cell, cell + 1 - place  # distances from both ends of the cell, in cells
        a, b, c = (s[element, cell + k] for k in range(3))
        slope = (a * q**2 + b * (1 + 2 * r * q) + c * r**2) / 2
        rise = (a * (1 - q**3) + b * r * (3 + 3 * r - 2 * r**2) + c * r**3) * width / 6
        return knots[element, cell] + rise + (x - inside) * slope, slope

    def inverse(self, y):
        """Returns x by bisection, which works for every increasing function."""
        low, high = torch.full_like(y, -1e3), torch.full_like(y, 1e3)
        for _ in range(50):
            middle = (low + high) / 2
            above = self(middle)[0] > y
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return middle


class Flow(nn.Module):
    """Matrices and splines in turn, from data to standard normals."""

    def __init__(self, size, depth=3):
        super().__init__()
        self.matrices = nn.ParameterList(torch.eye(size) for _ in range(depth))
        self.offsets = nn.ParameterList(torch.zeros(size) for _ in range(depth))
        self.splines = nn.ModuleList(Spline(size) for _ in range(depth))

    def energy(self, x):
        """Returns E(x) of every row: -log p(x) without log Z, and without any log-determinant."""
        log_slopes = 0
        for W, b, spline in zip(self.matrices, self.offsets, self.splines, strict=True):
            x, slope = spline(x @ W.T + b)
            log_slopes = log_slopes + slope.log().sum(1)
        return (x**2 + math.log(2 * math.pi)).sum(1) / 2 - log_slopes

    def log_normalizer(self):
        """Returns the exact log Z in O(D^3). An evaluation needs it once."""
        return -sum(torch.linalg.slogdet(W).logabsdet for W in self.matrices)

    def score(self, x):
        """Returns d log p / dx at every row. It can be differentiated again."""
        x = x.requires_grad_()
        return -torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]

    @torch.no_grad()
    def sample(self, count):
        """Returns exact samples: the inverse of the flow at standard normals."""
        x = torch.randn(count, len(self.offsets[0]))
        layers = list(zip(self.matrices, self.offsets, self.splines, strict=True))
        for W, b, spline in reversed(layers):
            x = torch.linalg.solve(W, (spline.inverse(x) - b).T).T
        return x


class LazyNormalizer:
    """log Z to first order in the matrices, around their values at the last refresh."""

    def __init__(self, flow):
        self.flow = flow

    @torch.no_grad()
    def refresh(self):
        """Takes the exact log Z and its gradients, -W^-T: the only O(D^3) of a training."""
        self.gradients = [-torch.linalg.inv(W).T for W in self.flow.matrices]
        self.offset = self.flow.log_normalizer() - self.linear()

    def linear(self):
        return sum((G * W).sum() for G, W in zip(self.gradients, self.flow.matrices, strict=True))

    def __call__(self):
        return self.offset + self.linear()


def likelihood(flow, log_z, x):
    """Returns -log p(x); the gradients of its log Z are those of the last refresh."""
    return flow.energy(x) + log_z()


def denoising(flow, log_z, x):
    """Adds score matching: at x + SIGMA noise the score should point back, -noise / SIGMA."""
    noise = torch.randn_like(x)
    error = SIGMA * flow.score(x + SIGMA * noise) + noise
    return (error**2).sum(1) / 2 + likelihood(flow, log_z, x)


class Pixels:
    """The map from integer pixels to uncorrelated numbers around 0."""

    def __init__(self, images):
        z, _ = self.logit(images)
        values, vectors = torch.linalg.eigh(torch.cov(z.T))
        self.mean, self.whiten = z.mean(0), vectors / values.sqrt()
        self.log_det = torch.linalg.slogdet(self.whiten).logabsdet

    def logit(self, images, margin=1e-6):
        """Adds uniform noise, which gives integers a density, and maps [0, LEVELS] to the line."""
        scale = (1 - 2 * margin) / LEVELS
        p = margin + scale * (images + torch.rand_like(images))
        return p.logit(), (scale / (p * (1 - p))).log().sum(1)

    def __call__(self, images):
        """Returns the rows, and the log-determinant of the map at each."""
        z, log_det = self.logit(images)
        return (z - self.mean) @ self.whiten, log_det + self.log_det

    def inverse(self, x):
        z = torch.linalg.solve(self.whiten.T, x.T).T + self.mean
        return (z.sigmoid() * LEVELS).long().clamp(max=LEVELS - 1)


def show(images):
    """Prints 8 x 8 images side by side."""
    for lines in images.view(-1, 8, 8).transpose(0, 1):
        rows = ("".join(" .:-=+*#%@"[p * 10 // LEVELS] * 2 for p in line) for line in lines)
        print("  ".join(rows))


def train(flow, loss, pixels, images):
    """Trains by Adam with a falling learning rate."""
    log_z, start = LazyNormalizer(flow), time.time()
    optimizer = torch.optim.Adam(flow.parameters(), RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        if step % REFRESH == 0:
            log_z.refresh()
        x, _ = pixels(images[torch.randint(len(images), (BATCH,))])
        value = loss(flow, log_z, x).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 1000 == 0:
            print(f"step {step:4}  loss {value:7.2f}  {time.time() - start:3.0f} s", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    images = torch.tensor(load_digits().data, dtype=torch.float32)
    images, test = images[torch.randperm(len(images))].tensor_split([-360])
    pixels = Pixels(images)
    flow, loss = Flow(64), denoising if "dsm" in sys.argv else likelihood
    train(flow, loss, pixels, images)
    show(pixels.inverse(flow.sample(8)))
    with torch.no_grad():
        x, log_det = pixels(test)
        nll = flow.energy(x) + flow.log_normalizer() - log_det
    print(f"test NLL {nll.mean():.2f} ± {nll.std() / len(nll) ** 0.5:.2f} nats")
