"""Transforms of images, for a whole batch or for one image at a time.

Random numbers depend on (seed, sample, view) only, so that the same view of an image is the same in
every batch, process and run, and teacher outputs for it can be cached.
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
from stillhouse.data.transforms.scale import RandomCrop, RandomScale
from stillhouse.data.transforms.zoom import BoxCrop, Expand

__all__ = [
    "BoxCrop",
    "CenterCrop",
    "Chain",
    "ColorJitter",
    "Crop",
    "Cutout",
    "Erasing",
    "Expand",
    "Flip",
    "RandAugment",
    "RandomCrop",
    "RandomScale",
    "Resize",
    "ResizedCrop",
    "Single",
    "Transform",
    "all_batched",
    "is_random",
    "normalise",
    "transform_batch",
]
