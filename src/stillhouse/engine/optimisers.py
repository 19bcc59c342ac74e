"""The optimisers that a recipe can name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, overload

import torch
from pydantic import Field
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.spec import require, spec

Named = Iterable[tuple[str, nn.Parameter]]


@spec
class SGD:
    """Stochastic gradient descent with momentum.

    `bias_lr` and `decay_biases` are for the biases of convolutions and linear layers, not of norms.
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    decay_norms: bool = True  # weight decay for norms and biases, too
    decay_biases: bool = True
    bias_lr: float = 1.0  # a factor of the learning rate
    kind: Literal["sgd"] = "sgd"

    def __post_init__(self) -> None:
        _check_common(self.lr, self.weight_decay)
        require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)
        require(0 < self.bias_lr < math.inf, "bias_lr", "positive and finite", self.bias_lr)
        if self.nesterov and self.momentum == 0:
            raise ValueError("`nesterov` needs a positive `momentum`")

    def build(self, named_parameters: Named) -> torch.optim.Optimizer:
        """Create the optimiser of these parameters."""
        named = list(named_parameters)
        groups = _groups(named, self.weight_decay, self.decay_norms)
        if not self.decay_biases or self.bias_lr != 1:
            biases = _layer_biases(named)
            decay = self.weight_decay if self.decay_biases and self.decay_norms else 0.0
            options = {"weight_decay": decay, "lr": self.lr * self.bias_lr}
            groups = _set_apart(groups, biases, options)
        fused = _can_fuse(groups)
        optimiser = torch.optim.SGD(
            groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=fused
        )
        if fused and self.momentum:
            optimiser.register_step_pre_hook(_create_momentum)
        return optimiser


@spec
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay_norms: bool = True  # weight decay for norms and biases, too
    kind: Literal["adamw"] = "adamw"

    def __post_init__(self) -> None:
        _check_common(self.lr, self.weight_decay, self.eps)
        _check_betas(self.betas)

    def build(self, named_parameters: Named) -> torch.optim.Optimizer:
        """Create the optimiser of these parameters."""
        groups = _groups(named_parameters, self.weight_decay, self.decay_norms)
        return torch.optim.AdamW(
            groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=_can_fuse(groups)
        )


@spec
class Adam:
    """Adam with weight decay in the gradient (Kingma and Ba, 2015)."""

    lr: float = 1e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay_norms: bool = True  # weight decay for norms and biases, too
    kind: Literal["adam"] = "adam"

    def __post_init__(self) -> None:
        _check_common(self.lr, self.weight_decay, self.eps)
        _check_betas(self.betas)

    def build(self, named_parameters: Named) -> torch.optim.Optimizer:
        """Create the optimiser of these parameters."""
        groups = _groups(named_parameters, self.weight_decay, self.decay_norms)
        return torch.optim.Adam(
            groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=_can_fuse(groups)
        )


@spec
class RMSprop:
    """RMSprop as in TensorFlow, for which the EfficientNet recipes were tuned."""

    lr: float = 0.048
    weight_decay: float = 0.0
    alpha: float = 0.9
    momentum: float = 0.9
    eps: float = 1e-3
    decay_norms: bool = True  # weight decay for norms and biases, too
    kind: Literal["rmsprop"] = "rmsprop"

    def __post_init__(self) -> None:
        _check_common(self.lr, self.weight_decay, self.eps)
        require(0 <= self.alpha < 1, "alpha", "in [0, 1)", self.alpha)
        require(0 <= self.momentum < 1, "momentum", "in [0, 1)", self.momentum)

    def build(self, named_parameters: Named) -> torch.optim.Optimizer:
        """Create the optimiser of these parameters."""
        return TensorFlowRMSprop(
            _groups(named_parameters, self.weight_decay, self.decay_norms),
            lr=self.lr,
            alpha=self.alpha,
            momentum=self.momentum,
            eps=self.eps,
        )


Optimiser = Annotated[SGD | AdamW | Adam | RMSprop, Field(discriminator="kind")]


class TensorFlowRMSprop(torch.optim.Optimizer):
    """RMSprop with epsilon inside the square root, squares initialised with 1, momentum of updates.

    `torch.optim.RMSprop` has epsilon outside the root, squares initialised with 0 and momentum of
    gradients; with an epsilon of 1e-3 or a changing learning rate the results differ.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        alpha: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "momentum": momentum,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["squares"] = torch.ones_like(parameter)
            state["velocity"] = torch.zeros_like(parameter)
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        squares, velocity = state["squares"], state["velocity"]
        squares.lerp_(gradient.square(), 1 - group["alpha"])
        root = squares.add(group["eps"]).sqrt_()
        velocity.mul_(group["momentum"]).add_(gradient.div(root).mul_(group["lr"]))
        parameter.sub_(velocity)


def _groups(named: Named, weight_decay: float, decay_norms: bool) -> list[dict[str, Any]]:
    """One group, or two where norms and biases, of at most one dimension, have no weight decay."""
    # By identity, since a tied weight may have two names.
    unique = {id(parameter): parameter for _, parameter in named if parameter.requires_grad}
    parameters = list(unique.values())
    if not parameters:
        raise UserError("all parameters are frozen; unfreeze some")
    if decay_norms:
        return [{"params": parameters, "weight_decay": weight_decay}]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    not_decayed = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [(decayed, weight_decay), (not_decayed, 0.0)]
    return [{"params": part, "weight_decay": decay} for part, decay in groups if part]


def _layer_biases(named: Named) -> list[nn.Parameter]:
    """The biases of layers whose weights have two dimensions or more."""
    known = dict(named)
    weights = {name: known.get(name.removesuffix("bias") + "weight") for name in known}
    return [
        parameter
        for name, parameter in known.items()
        if name.endswith("bias") and (weight := weights[name]) is not None and weight.ndim > 1
    ]


def _set_apart(
    groups: list[dict[str, Any]], parameters: list[nn.Parameter], options: dict[str, float]
) -> list[dict[str, Any]]:
    """The groups without some parameters, which become a group of their own."""
    chosen = {id(parameter) for parameter in parameters if parameter.requires_grad}
    rest = [
        group | {"params": [p for p in group["params"] if id(p) not in chosen]} for group in groups
    ]
    apart = [p for group in groups for p in group["params"] if id(p) in chosen]
    made = [*rest, {"params": apart, **options}]
    return [group for group in made if group["params"]]


def _can_fuse(groups: list[dict[str, Any]]) -> bool:
    # One kernel for all parameters: for small networks the launches take most of the time.
    return all(
        p.device.type in ("cpu", "cuda") and p.is_floating_point()
        for group in groups
        for p in group["params"]
    )


def _create_momentum(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    # torch's fused SGD creates the momentum of a whole group in one step, and fails where a
    # parameter has its first gradient later than others. Momentum 0 gives the same first step.
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = optimiser.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def _check_common(lr: float, weight_decay: float, eps: float = 1.0) -> None:
    require(0 < lr < math.inf, "lr", "positive and finite", lr)
    require(0 <= weight_decay < math.inf, "weight_decay", "non-negative and finite", weight_decay)
    require(0 < eps < math.inf, "eps", "positive and finite", eps)


def _check_betas(betas: tuple[float, float]) -> None:
    valid = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    require(valid, "betas", "two numbers in [0, 1)", betas)
