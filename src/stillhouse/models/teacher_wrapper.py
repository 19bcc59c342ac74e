"""A network behind what it expects of its images and what is expected of its classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError


class TeacherWrapper(nn.Module):
    """A network given images normalised and sized for another, answering in another's class order.

    It is put around a teacher: the images of a batch are made for the student.
    """

    factor: Tensor
    shift: Tensor
    select: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        *,
        data: tuple[Sequence[float], Sequence[float]],
        own: tuple[Sequence[float], Sequence[float]] | None = None,
        size: tuple[int, int] | None = None,
        select: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.size = model, size
        mean, std = (torch.tensor(tuple(x), dtype=torch.float32) for x in data)
        own_mean, own_std = (torch.tensor(tuple(x)) for x in own) if own else (mean, std)
        # (x * std + mean - own_mean) / own_std in one multiplication and one addition
        self.register_buffer("factor", (std / own_std)[:, None, None])
        self.register_buffer("shift", ((mean - own_mean) / own_std)[:, None, None])
        index = None if select is None else torch.tensor(tuple(select))
        self.register_buffer("select", index)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as the student sees them -> (N, classes) in the data's order."""
        images = images * self.factor + self.shift
        if self.size and tuple(images.shape[-2:]) != tuple(self.size):
            images = F.interpolate(
                images, self.size, mode="bilinear", align_corners=False, antialias=True
            )
        logits: Tensor = self.model(images)
        return logits if self.select is None else logits[:, self.select]


def class_order(own: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Where each wanted class stands in a network's own list; None where the lists are the same."""
    if list(own) == list(wanted):
        return None
    place = {name: index for index, name in enumerate(own)}
    missing = [name for name in wanted if name not in place]
    if missing:
        raise UserError(
            f"the teacher knows {len(own)} classes, and {len(missing)} of the data's "
            f"{len(wanted)} are not among them ({', '.join(missing[:3])}); train it on these"
        )
    return [place[name] for name in wanted]
