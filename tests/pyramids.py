"""Small networks with a feature pyramid, which name their places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillhouse.models.places import Places


class Pyramid(nn.Module):
    """Two stages, two levels of a neck, and a head that both share: -> (N, classes, locations)."""

    def __init__(self, width: int = 4, levels: tuple[str, ...] = ("p3", "p4")) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())
        self.neck = nn.ModuleDict({name: nn.Conv2d(width, width, 1) for name in levels})
        self.head = nn.Conv2d(width, 5, 1)
        self.places = Places(
            {"stage1": "layer1", "stage2": "layer2"},
            {name: f"neck.{name}" for name in levels},
            "head",
        )

    def forward(self, image: Tensor) -> Tensor:
        shallow = self.layer1(image)
        levels = zip(self.neck.values(), (shallow, self.layer2(shallow)), strict=True)
        return torch.cat([self.head(conv(level)).flatten(2) for conv, level in levels], 2)
