"""Sequences of transforms, for a batch or for one image, and normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.data.random import derive_seed, seeded, uniform, uniform_number
from stillhouse.data.targets import SampleTarget, is_spatial
from stillhouse.data.transforms.catalogue import Transform
from stillhouse.data.transforms.objects import move
from stillhouse.errors import UserError


def is_random(transforms: Sequence[Transform]) -> bool:
    """Whether a transform is random, so that views of an image differ."""
    return any(transform.random for transform in transforms)


def all_batched(transforms: Sequence[Transform]) -> bool:
    """Whether all transforms have a batched form."""
    return all(transform.batched for transform in transforms)


def transform_batch(
    images: Tensor,
    transforms: Sequence[Transform],
    seed: int,
    keys: Tensor,
    views: Tensor,
    first: int = 0,
) -> Tensor:
    """Apply transforms that all have a batched form: (N, C, H, W) -> (N, C, H, W).

    `first` is the index of the first draw of random numbers.
    """
    for transform in transforms:
        assert transform.batched
        start = first

        def draw(index: int, start: int = start) -> Tensor:
            return uniform(seed, keys, views, start + index)

        images = transform.batch(images, draw)
        first += transform.draws
    return images


class Single:
    """Transforms for one image at a time, with random numbers by sample and view.

    `first` is the index of the first draw of random numbers.
    """

    def __init__(self, transforms: Sequence[Transform], seed: int, first: int = 0) -> None:
        self.seed, self.first = seed, first
        self.transforms = tuple(transforms)
        # the function of each transform without a batched form
        self._single = [None if t.batched else t.single() for t in self.transforms]

    def __call__(self, image: Tensor, key: int, view: int) -> Tensor:
        """One image in one view: (C, H, W) uint8 -> (C, h, w) uint8."""
        return self.sample(image, None, key, view)[0]

    def sample(
        self, image: Tensor, target: SampleTarget, key: int, view: int
    ) -> tuple[Tensor, SampleTarget]:
        """One image and its target in one view: (C, H, W) uint8 -> (C, h, w) uint8.

        The random numbers do not depend on the target, nor does the image except after box_crop.
        """
        first, spatial = self.first, is_spatial(target)
        with seeded(derive_seed(self.seed, key, view)):
            for transform, change in zip(self.transforms, self._single, strict=True):
                if change is not None:
                    if transform.geometric and spatial:
                        image, target = move(change, image, target)
                    else:
                        image = change(image)
                    continue
                assert transform.batched
                numbers = [
                    torch.tensor([uniform_number(self.seed, key, view, first + i)])
                    for i in range(transform.draws)
                ]
                if transform.geometric and spatial:
                    image, target = move(transform.move(numbers.__getitem__), image, target)
                else:
                    image = transform.batch(image[None], numbers.__getitem__)[0]
                first += transform.draws
        return image, target


class Chain:
    """Transforms for the images of a batch, with the same result as `Single` but faster.

    Transforms with a batched form at the beginning and the end are applied to all images at once,
    if the images have one shape.
    """

    def __init__(self, transforms: Sequence[Transform], seed: int) -> None:
        single = [i for i, transform in enumerate(transforms) if not transform.batched]
        start, stop = (single[0], single[-1] + 1) if single else (len(transforms),) * 2
        self.seed = seed
        self.head, middle, self.tail = transforms[:start], transforms[start:stop], transforms[stop:]
        self.whole = Single(transforms, seed)
        self.middle = Single(middle, seed, draws(self.head))

    def __call__(self, images: Sequence[Tensor], keys: Tensor, views: Tensor) -> Tensor:
        """Images by key and view: N x (C, H, W) uint8, (N,), (N,) -> (N, C, h, w) uint8."""
        if len({image.shape for image in images}) > 1:
            return stack(one_by_one(self.whole, images, keys, views))
        batch = transform_batch(stack(images), self.head, self.seed, keys, views)
        if self.middle.transforms:
            batch = stack(one_by_one(self.middle, batch.unbind(), keys, views))
        first = draws((*self.head, *self.middle.transforms))
        return transform_batch(batch, self.tail, self.seed, keys, views, first)


def draws(transforms: Sequence[Transform]) -> int:
    """The number of draws that the batched forms of transforms make."""
    return sum(transform.draws for transform in transforms if transform.batched)


def one_by_one(
    single: Single, images: Sequence[Tensor], keys: Tensor, views: Tensor
) -> list[Tensor]:
    """Apply transforms to each image by itself: N x (C, H, W), (N,), (N,) -> N x (C, h, w)."""
    samples = zip(images, keys.tolist(), views.tolist(), strict=True)
    return [single(image, key, view) for image, key, view in samples]


def stack(images: Sequence[Tensor]) -> Tensor:
    """Images as a batch: N x (C, H, W) -> (N, C, H, W); raises UserError for different shapes."""
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise UserError(
            f"images of one batch have different shapes ({first} and {second}); "
            "add transforms to one size, such as resize and center_crop"
        )
    return torch.stack(tuple(images))


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images in [0, 255] minus mean, divided by std: (N, C, H, W) uint8, (C,), (C,) -> float32.

    `mean` and `std` are for images in [0, 1].
    """
    scale = (255 * std)[:, None, None]
    return images.to(torch.float32).div_(scale).sub_((mean / std)[:, None, None])
