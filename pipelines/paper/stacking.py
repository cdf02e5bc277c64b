"""Trainings of many small flows of one form at once: what is a product of one is one of all.

Of a net of a few thousand weights a step is hundreds of calls of a few microseconds each. Stacked,
the nets share the calls; the numbers of each are those of a training of its own, up to rounding:
nets see nothing of each other, and one that becomes non-finite stays alone with it.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from ebflow.flow import Flow
from ebflow.loss import Loss, LossModule, Progress, Schedule, cosine
from ebflow.objectives import Objective
from ebflow.randomness import RowGenerator

Weights = dict[str, Tensor]


class Member(NamedTuple):
    """One of the nets that are trained.

    Attributes:
        flow: The net as it starts; its layers are those of the others.
        rate: The learning rate of Adam.
        batch: The place of its rows among the batches of a step.
    """

    flow: Flow
    rate: float
    batch: int = 0


class Stack:
    """Creates the trainings of flows by Adam under a schedule, with averaged weights.

    A step costs what those of all nets cost, without their overheads: 1/2 to 1/3 of them at
    D = 64, nothing less at D = 784.

    Arguments:
        members: The nets.
        objective: What is minimised; it may not draw but from its generator, which is a
            ``RowGenerator``.
        steps: The steps of the schedule.
        schedule: The learning rates' factor as a function of progress.
        ema_decay: The averages' decay d, used as min(d, (1 + t)/(10 + t)) at update t.
    """

    def __init__(
        self,
        members: Sequence[Member],
        objective: Objective,
        *,
        steps: int,
        schedule: Schedule = cosine,
        ema_decay: float = 0.99,
    ) -> None:
        # Sorted by rate: Adam has one for each of its groups.
        self._order = sorted(range(len(members)), key=lambda index: members[index].rate)
        members = [members[index] for index in self._order]
        modules = [LossModule(copy.deepcopy(m.flow), Loss(objective)) for m in members]
        self._template, (weights, self._buffers) = modules[0], stack_module_state(modules)
        self.averages = {name: t.detach().clone() for name, t in weights.items()}
        rates = [member.rate for member in members]
        self._groups = {
            rate: _leaves(weights, [own == rate for own in rates]) for rate in dict.fromkeys(rates)
        }
        self._optimizer = torch.optim.Adam(
            [{"params": list(group.values()), "lr": rate, "rate": rate}
             for rate, group in self._groups.items()], fused=True
        )  # fmt: skip
        self._places = torch.tensor([member.batch for member in members])
        self._losses = vmap(self._loss, in_dims=(0, 0, 0, None, None, None))
        self.step, self.steps, self.schedule, self.ema_decay = 0, steps, schedule, ema_decay

    def train_step(self, batches: Tensor, generator: RowGenerator) -> Tensor:
        """Does one step of every net; returns their mean losses before it, with shape (N,).

        Arguments:
            batches: Batches of rows, with shape (K, B, *event).
            generator: Where random numbers come from, the same ones for every net.
        """
        progress = Progress(self.step, self.step / self.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * self.schedule(progress.share)
        self._optimizer.zero_grad()
        given = (self._weights(), self._buffers, self._places)
        losses = self._losses(*given, batches, generator, progress)
        losses.sum().backward()
        self._optimizer.step()
        self._average()
        self.step += 1
        return self._in_order(losses.detach())

    def flows(self) -> Iterator[Flow]:
        """Yields the nets with their averaged weights, in the order of the members."""
        for place in self._in_order(torch.arange(len(self._order))).tolist():
            module = copy.deepcopy(self._template)
            state = {**self.averages, **self._buffers}
            for name, value in (*module.named_parameters(), *module.named_buffers()):
                value.data.copy_(state[name][place])
            yield module.flow.eval()

    def _loss(
        self,
        weights: Weights,
        buffers: Weights,
        place: Tensor,
        batches: Tensor,
        generator: RowGenerator,
        progress: Progress,
    ) -> Tensor:
        """Returns the mean loss of one net."""
        x = batches.index_select(0, place.view(1))[0]
        arguments = (x, None, generator, progress)
        return functional_call(self._template, (weights, buffers), arguments)[0].mean()

    def _weights(self) -> Weights:
        groups = self._groups.values()
        return {name: torch.cat([group[name] for group in groups]) for name in self.averages}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        for name, now in self._weights().items():
            self.averages[name].lerp_(now, 1 - decay)

    def _in_order(self, values: Tensor) -> Tensor:
        """Returns values of the nets in the order of the members."""
        found = torch.empty_like(values)
        found[self._order] = values
        return found


def _leaves(weights: Weights, chosen: Sequence[bool]) -> Weights:
    """Returns the weights of some of the nets, to be trained."""
    mask = torch.tensor(chosen)
    return {name: t.detach()[mask].clone().requires_grad_() for name, t in weights.items()}
