"""Several networks as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.models.scores import class_scores


class Ensemble(nn.Module):
    """The mean of the members' logits: (N, C, H, W) -> (N, classes).

    A tap of a member is `members.0.PATH`, and its output `members.0`.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, *inputs: Any) -> Tensor:
        """The mean of the members' class scores: (N, C, H, W) -> (N, classes)."""
        return torch.stack([class_scores(member(*inputs)) for member in self.members]).mean(0)
