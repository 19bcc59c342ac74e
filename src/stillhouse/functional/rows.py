"""Feature maps as rows for a distance: the event axis last, everything else first."""

from torch import Tensor


def channels(maps: Tensor) -> Tensor:
    """One row per channel and image: (N, C, H, W) -> (N * C, H * W)."""
    return maps.flatten(2).flatten(0, 1)


def pixels(maps: Tensor) -> Tensor:
    """One row per pixel: (N, C, H, W) -> (N * H * W, C)."""
    return maps.flatten(2).mT.flatten(0, 1)


def space(maps: Tensor) -> Tensor:
    """One row per image, channels summed: (N, C, H, W) -> (N, H * W)."""
    return maps.sum(1).flatten(1)


def images(maps: Tensor) -> Tensor:
    """One row per image: (N, ...) -> (N, E)."""
    return maps.flatten(1)


def channels_of_batch(maps: Tensor) -> Tensor:
    """One row per channel, over all images and pixels: (N, C, H, W) -> (C, N * H * W)."""
    return maps.transpose(0, 1).flatten(1)
