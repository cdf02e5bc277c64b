r"""Block-tridiagonal Toeplitz matrices: what a zero-padded convolution is, strip by strip.

A convolution whose kernel reaches r pixels moves information by at most r rows. In strips of r
rows, each of m = r W C coordinates, its matrix is

.. math:: J = \begin{pmatrix} A & U & & \\ L & A & U & \\ & L & A & \ddots \\ & & \ddots & \ddots
    \end{pmatrix}, \qquad S_1 = A, \quad S_{i+1} = A - L S_i^{-1} U,

and by block elimination :math:`\log |\det J| = \sum_i \log |\det S_i|`: O(D m²) in the place of
O(D³), D / m strips being eliminated one after another. Rows are exchanged within a strip and not
between strips, so S may be ill-conditioned where J is not, which ``Elimination.accurate`` tells.

Source: Matrix Computations (Golub, Van Loan, 4th edition, 2013), §4.5, block tridiagonal systems.
"""

__all__ = ["Elimination"]

import torch
from torch import Tensor


class Elimination:
    """Creates the block elimination of J, differentiable; 5 m³ FLOP or so a strip.

    Arguments:
        strips: The top left corner of J, of two strips, with shape (2 m, 2 m).
        size: D, the side of J, more than m; the last strip may be cut.
    """

    def __init__(self, strips: Tensor, size: int) -> None:
        m = len(strips) // 2
        self.size, self.height = size, m
        (a, self.upper), (self.lower, _) = (rows.split(m, 1) for rows in strips.split(m))
        self.pivots, self.inverses = [a], [torch.linalg.inv_ex(a)[0]]
        for start in range(m, size, m):
            n = min(m, size - start)
            fill = self.lower[:n] @ self.inverses[-1] @ self.upper[:, :n]
            self.pivots.append(a[:n, :n] - fill)
            self.inverses.append(torch.linalg.inv_ex(self.pivots[-1])[0])

    def log_dets(self) -> Tensor:
        """Returns log |det J|."""
        whole = torch.linalg.slogdet(torch.stack(self.pivots[:-1]))[1].sum()
        return whole + torch.linalg.slogdet(self.pivots[-1])[1]

    @property
    def accurate(self) -> bool:
        """Whether no pivot S has a condition number, in the norm of row sums, above ε^(-1/2)."""
        eps = torch.finfo(self.upper.dtype).eps
        pairs = zip(self.pivots, self.inverses, strict=True)
        conditions = [(_norm(s.detach()) * _norm(x.detach())) for s, x in pairs]
        return bool(torch.stack(conditions).max() < eps**-0.5)

    def solve(self, columns: Tensor) -> Tensor:
        """Returns J⁻¹ z for columns z, with shape (D, R)."""
        forward: list[Tensor] = []
        for z, inverse in zip(columns.split(self.height), self.inverses, strict=True):
            if forward:
                z = z - self.lower[: len(z)] @ forward[-1]
            forward.append(inverse @ z)
        solved = forward[-1:]
        for z, inverse in zip(forward[-2::-1], self.inverses[-2::-1], strict=True):
            after = solved[-1]
            solved.append(z - inverse @ (self.upper[:, : len(after)] @ after))
        return torch.cat(solved[::-1])


def _norm(matrix: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrix, torch.inf)
