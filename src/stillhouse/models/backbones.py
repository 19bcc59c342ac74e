"""Any network of the zoo as the backbone of a dense network: its maps by stride."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stillhouse.errors import UserError
from stillhouse.models.aliases import recorded_aliases
from stillhouse.models.guesses import has_layers
from stillhouse.models.places import is_stage
from stillhouse.models.recording import Recording, record
from stillhouse.models.taps import Tapped
from stillhouse.models.trunk import cut_after

EXAMPLE = (128, 192)  # an image with sides that differ, so that the layout of a map can be told


class Stage(NamedTuple):
    """One stage of a network: where its map is, and the form of that map."""

    path: str
    stride: int
    width: int  # channels
    channels_last: bool


class Backbone(nn.Module):
    """A network without its classifier, which returns the maps of some of its stages.

    (N, C, H, W) -> one (N, widths[i], H / strides[i], W / strides[i]) for each of `strides`. Layers
    behind the last of them are dropped. The parameters of the stem and the first `frozen` stages
    are fixed, and with `frozen_norms` all batch norms keep their statistics, also after `train()`.
    Raises UserError for a network that has no stage of one of these strides.
    """

    _tapped: Tapped

    def __init__(
        self,
        body: nn.Module,
        strides: Sequence[int] = (8, 16, 32),
        *,
        channels: int = 3,
        frozen: int = 0,
        frozen_norms: bool = False,
        size: tuple[int, int] = EXAMPLE,
    ) -> None:
        super().__init__()
        example = torch.zeros(1, channels, *size)
        recording = record(body, example)
        self.stages = find_stages(body, recording, example)
        self.strides = tuple(strides)
        chosen = choose_stages(type(body).__name__, self.stages, self.strides)
        self.widths = tuple(stage.width for stage in chosen.values())
        self._channels_last = {name: stage.channels_last for name, stage in chosen.items()}
        last = list(chosen.values())[-1].path
        cut_after(body, last, recording.calls)
        self._frozen = frozen
        self._fixed = paths_up_to(self.stages, frozen, recording) if frozen else ()
        self._frozen_norms = frozen_norms
        self.body = body
        # not registered as a module, so that each parameter has one name
        tapped = Tapped(body, {name: stage.path for name, stage in chosen.items()}, (example,))
        object.__setattr__(self, "_tapped", tapped)
        for path in self._fixed:
            body.get_submodule(path).requires_grad_(False)
        self.train(self.training)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> a map for each of `strides`."""
        taps = self._tapped(images).taps
        return [
            taps[name].permute(0, 3, 1, 2).contiguous() if last else taps[name]
            for name, last in self._channels_last.items()
        ]

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for path in self._fixed:
            self.body.get_submodule(path).eval()
        if self._frozen_norms:
            for module in self.body.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    @property
    def frozen_parts(self) -> str:
        """What is not trained, as words of a sentence; "" for nothing."""
        stages = [f"the stem and the first {self._frozen} stages"] if self._frozen else []
        norms = ["the statistics of batch norms"] if self._frozen_norms else []
        return " and ".join([*stages, *norms])

    def places(self, prefix: str) -> dict[str, str]:
        """The paths of the stages in a network that has this backbone at `prefix`."""
        return {name: f"{prefix}.body.{stage.path}" for name, stage in self.stages.items()}


def find_stages(body: nn.Module, recording: Recording, example: Tensor) -> dict[str, Stage]:
    """The stages of a network by name, shallowest first, with maps that have channels last, too."""
    height, width = example.shape[-2:]
    shapes = {call.path: call.shape for call in recording.calls}
    aliases = recorded_aliases(body, recording, example)
    paths = {name: path for name, path in aliases.items() if is_stage(name)}
    if paths:
        return {
            name: Stage(path, height // shapes[path][2], shapes[path][1], False)
            for name, path in paths.items()
            if len(shapes[path]) == 4
        }
    found: dict[int, Stage] = {}
    for call in recording.calls:
        shape = call.shape
        if call.path and len(shape) == 4 and has_layers(call.module):
            stride = height // shape[1] if 0 < shape[1] <= height else 0
            if stride and shape[2] * stride == width:
                # a container finishes after its parts, so the outermost module remains
                found[stride] = Stage(call.path, stride, shape[3], True)
    return {f"stage{number}": found[stride] for number, stride in enumerate(sorted(found), 1)}


def choose_stages(
    network: str, stages: Mapping[str, Stage], strides: Sequence[int]
) -> dict[str, Stage]:
    """The deepest stage of each stride; raises UserError where there is none."""
    by_stride = {stage.stride: (name, stage) for name, stage in stages.items()}
    for stride in strides:
        if stride not in by_stride:
            known = ", ".join(map(str, by_stride)) or "none"
            raise UserError(
                f"{network} has no stage of stride {stride}, only {known}; set strides to some of "
                "them, or take another backbone"
            )
    return dict(by_stride[stride] for stride in strides)


def paths_up_to(stages: Mapping[str, Stage], count: int, recording: Recording) -> tuple[str, ...]:
    """The paths of all modules that run before the end of the first `count` stages."""
    paths = [stage.path for stage in stages.values()]
    if not 0 < count < len(paths):
        raise UserError(f"`frozen` must be from 0 to {len(paths) - 1} stages, got {count}")
    order = [call.path for call in recording.calls]
    before = order[: order.index(paths[count - 1]) + 1]
    return tuple(dict.fromkeys(path for path in before if path))
