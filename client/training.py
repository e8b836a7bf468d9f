"""The local loop, the only one: gradient, proximal term, step."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function

from client.cohort import Samples
from client.guessing import guessed
from client.placement import samples_on
from common.control import add_correction
from common.models.layers import lr_factors_of
from common.proximal import add_proximal_gradient
from common.segments import Around
from common.study import Study
from common.tasks.task import Task
from common.training_config import TrainingConfig
from common.transforms import Augment, augment

AUGMENT, FORWARD, GRADIENT, STEP = "wd augment", "wd forward", "wd gradient", "wd step"
"""Parts of a step, as a profiler knows them; the gradient has augment and forward in it."""


class GradientSource(Protocol):
    """Where the gradients of a round come from: plain batches, or DP-SGD."""

    model: nn.Module

    def batches(self) -> Iterator[Tensor]:
        """Yield the sample indices of each step of the round."""
        ...

    def backward(self, indices: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Leave the step's gradient in every p.grad; return the loss where it may be told."""
        ...

    def close(self) -> None:
        """Leave the network as it was found."""
        ...


@dataclass(frozen=True, kw_only=True)
class LocalResult:
    """What a round did at a site, besides the weights."""

    steps: int
    mean_loss: float | None


class PlainGradient:
    """Gradients of the mean loss over shuffled batches."""

    def __init__(
        self,
        model: nn.Module,
        training: TrainingConfig,
        num_samples: int,
        draws: torch.Generator,
        factor_N: Tensor | None = None,
    ) -> None:
        """factor_N: how often each sample is drawn beside the others; None: once an epoch."""
        self.model = model
        self._factor_N = factor_N
        self._training = training
        self._num_samples = num_samples
        self._draws = draws

    @property
    def steps(self) -> int:
        """Steps of a round."""
        return steps_of(self._training, self._num_samples)

    def batches(self) -> Iterator[Tensor]:
        """Yield batches of a new order each epoch; the last one of an epoch may be short."""
        size, steps = self._training.batch_size, self.steps
        while steps > 0:
            order = self._order()
            for batch in torch.split(order, size)[:steps]:
                yield batch
                steps -= 1

    def _order(self) -> Tensor:
        if self._factor_N is None:
            return torch.randperm(self._num_samples, generator=self._draws)
        return torch.multinomial(self._factor_N, self._num_samples, True, generator=self._draws)

    def backward(self, indices: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Leave the gradient of the batch's mean loss in p.grad, clipped if the study asks."""
        self.model.zero_grad(set_to_none=True)
        loss = loss_of(indices)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._training.grad_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._training.grad_clip_norm)
        return loss.detach()

    def close(self) -> None:
        """Nothing was put on the network."""


def steps_of(training: TrainingConfig, num_samples: int) -> int:
    """Return the steps of a round of plain batches."""
    per_epoch = math.ceil(num_samples / training.batch_size)
    return training.local_steps or training.local_epochs * per_epoch


def build_optimizer(training: TrainingConfig, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Return the local optimiser; it forgets between rounds, as FedAvg's does.

    Each of its groups has the `factor` on the learning rate that training.lr_factors gives it
    (Howard and Ruder, ACL 2018, Sec. 3.2).

    Raises:
        ValueError: a pattern of lr_factors names no tensor.
    """
    groups = [
        {"params": of_factor, "lr": lr * factor, "factor": factor}
        for factor, of_factor in _by_factor(training, model).items()
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr, momentum=training.momentum, weight_decay=training.weight_decay
        )
    return torch.optim.AdamW(groups, lr, weight_decay=training.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups, each by its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def _by_factor(training: TrainingConfig, model: nn.Module) -> dict[float, list[nn.Parameter]]:
    factor_of = lr_factors_of(model, training.lr_factors)
    found: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name in factor_of:
            found.setdefault(factor_of[name], []).append(parameter)
    return found


def random_part(study: Study, task: Task, draws: torch.Generator) -> Augment:
    """Return what a step sees of its samples: changed at random, then as the task varies them."""
    changed = augment(study.data, draws, Around(study.model.margin, study.model.grid))
    vary = task.vary
    if vary is None:
        return changed
    return lambda images, targets: vary(*changed(images, targets), draws)


def train_round(
    source: GradientSource,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    task: Task,
    study: Study,
    changed: Augment,
    device: torch.device,
    on_step: Callable[[int], None] = lambda _: None,
    correction: Sequence[Tensor] = (),
    local: Collection[str] = (),
) -> LocalResult:
    """Train source.model for one round, in place.

    samples: images [N, C, *size] and targets, on the CPU; those without labels are learned by what
    the model says of them as the round begins, where the task asks. The proximal term and the
    correction (common/control.py; empty: none) join after the gradient is whole, so that they work
    the same with and without privacy. on_step: called with the number of steps done after each;
    what it raises ends the round. local: names of what stays at the site, which with
    training.local_first_steps takes turns with the rest.
    """
    model = source.model
    mu = study.strategy.proximal_mu
    reference = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    samples = guessed(model, samples, task, device, lambda: on_step(0))
    taken = samples_on(samples, study.data, device)

    def loss_of(indices: Tensor) -> Tensor:
        with record_function(AUGMENT):
            images, targets = changed(*taken(indices))
        with record_function(FORWARD), _precision(study.training, device):
            return task.loss(task.ask(model, images.to(device)), targets.to(device))

    losses: list[Tensor] = []
    steps = 0
    model.train()
    for indices in source.batches():
        with record_function(GRADIENT):
            loss = source.backward(indices, loss_of)
        with record_function(STEP):
            if mu:
                add_proximal_gradient(model, reference, mu)
            if correction:
                add_correction(model, correction)
            _take_turns(model, local, study.training.local_first_steps, steps)
            optimizer.step()
        steps += 1
        if loss is not None:
            losses.append(loss)
        on_step(steps)
    # Read when all is done: a GPU would have to be waited for in each step.
    told = torch.stack(losses).tolist() if losses else []
    return LocalResult(steps=steps, mean_loss=sum(told) / len(told) if told else None)


def _take_turns(model: nn.Module, local: Collection[str], first: int | None, done: int) -> None:
    """Drop the gradients of what is not trained in this step: these weights stay as they are.

    FedRep (Collins et al., ICML 2021, Algorithm 1): the head alone on the representation that came,
    then the representation alone. The noise of privacy is on all of them by then.
    """
    if first is None or not local:
        return
    for name, parameter in model.named_parameters():
        if (name in local) != (done < first):
            parameter.grad = None


def _precision(training: TrainingConfig, device: torch.device) -> AbstractContextManager[object]:
    if not training.amp:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
