"""The optimiser of the flow decoder: Muon for the kernels of hidden layers, AdamW for all other parameters.

A kernel is a matrix with a row per output map. Muon's step is its momentum with all singular values brought near 1, so
that every direction is learned at the same pace: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
networks".
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.99), 1e-8
DECAY = 1e-2, 1e-4  # of Muon's parameters and of the others, times the learning rate
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration, which brings singular values between 0.7 and 1.2
ITERATIONS = 5


class Muon(Optimizer):
    """Muon for `kernels` (each of two or more dimensions), AdamW for `others`."""

    def __init__(
        self, kernels: Iterable[nn.Parameter], others: Iterable[nn.Parameter], *, kernel_rate: float, rate: float
    ) -> None:
        groups = [
            {"params": list(kernels), "lr": kernel_rate, "orthogonal": True},
            {"params": list(others), "lr": rate, "orthogonal": False},
        ]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step by the gradients; parameters without one stay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * DECAY[0 if group["orthogonal"] else 1])
                move = self._orthogonal if group["orthogonal"] else self._adam
                parameter.add_(move(parameter, parameter.grad), alpha=-group["lr"])

    def _orthogonal(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        rows, columns = parameter.flatten(1).shape
        step = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1))
        return step.view_as(parameter) * max(1, rows / columns) ** 0.5

    def _adam(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            zeros = torch.zeros_like(parameter)
            state.update(step=zeros.new_zeros(()), mean=zeros, square=zeros.clone())
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - BETAS[0]) / (1 - BETAS[0] ** state["step"])
        square = state["square"].lerp_(gradient.square(), 1 - BETAS[1]) / (1 - BETAS[1] ** state["step"])
        return mean / (square.sqrt() + EPSILON)


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix (m, n) with the same singular vectors and singular values near 1, by a Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(ITERATIONS):
        product = x @ x.T
        x = a * x + (b * product + c * product @ product) @ x
    return x if wide is matrix else x.T
