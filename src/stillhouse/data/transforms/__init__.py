"""How images are changed: in a batch where that has a tensor form, else one by one.

Every draw depends on (seed, sample, view) alone, so that the same view of an image is the same in
every batch, process and run, and what a teacher said about it can be kept.
"""

from stillhouse.data.transforms.catalogue import Transform
from stillhouse.data.transforms.chain import (
    Chain,
    Single,
    all_batched,
    is_random,
    normalise,
    transform_batch,
)
from stillhouse.data.transforms.colour import ColorJitter
from stillhouse.data.transforms.erase import Cutout, Erasing
from stillhouse.data.transforms.geometry import CenterCrop, Crop, Flip, Resize, ResizedCrop
from stillhouse.data.transforms.rand_augment import RandAugment

__all__ = [
    "CenterCrop",
    "Chain",
    "ColorJitter",
    "Crop",
    "Cutout",
    "Erasing",
    "Flip",
    "RandAugment",
    "Resize",
    "ResizedCrop",
    "Single",
    "Transform",
    "all_batched",
    "is_random",
    "normalise",
    "transform_batch",
]
