"""The registry of transforms: the union of all that a recipe can name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stillhouse.data.transforms.colour import ColorJitter
from stillhouse.data.transforms.erase import Cutout, Erasing
from stillhouse.data.transforms.geometry import CenterCrop, Crop, Flip, Resize, ResizedCrop
from stillhouse.data.transforms.rand_augment import RandAugment
from stillhouse.data.transforms.scale import RandomCrop, RandomScale
from stillhouse.data.transforms.zoom import BoxCrop, Expand
from stillhouse.spec import BY_KIND

Transform = Annotated[
    Crop
    | Flip
    | ResizedCrop
    | Resize
    | CenterCrop
    | RandomScale
    | RandomCrop
    | BoxCrop
    | Expand
    | RandAugment
    | ColorJitter
    | Cutout
    | Erasing,
    Field(discriminator="kind"),
    BY_KIND,
]
