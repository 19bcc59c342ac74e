"""Transforms one after the other, for a batch or for one image, and into what networks take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.data.random import derive_seed, number, seeded, uniform
from stillhouse.data.targets import SampleTarget, moves
from stillhouse.data.transforms.catalogue import Transform
from stillhouse.data.transforms.objects import move
from stillhouse.errors import UserError


def is_random(transforms: Sequence[Transform]) -> bool:
    """Whether two views of an image differ."""
    return any(transform.random for transform in transforms)


def all_batched(transforms: Sequence[Transform]) -> bool:
    """Whether every transform has a tensor form for a whole batch."""
    return all(transform.batched for transform in transforms)


def transform_batch(
    images: Tensor,
    transforms: Sequence[Transform],
    seed: int,
    keys: Tensor,
    views: Tensor,
    first: int = 0,
) -> Tensor:
    """A batch through transforms that all have a tensor form: (N, C, H, W) -> (N, C, H, W).

    `first` draws were made before.
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
    """Transforms for one image at a time, seeded by sample and view; `first` draws were before."""

    def __init__(self, transforms: Sequence[Transform], seed: int, first: int = 0) -> None:
        self.seed, self.first = seed, first
        self.transforms = tuple(transforms)
        self._made = [None if t.batched else t.single() for t in self.transforms]

    def __call__(self, image: Tensor, key: int, view: int) -> Tensor:
        """One image in one view: (C, H, W) uint8 -> (C, h, w) uint8."""
        return self.sample(image, None, key, view)[0]

    def sample(
        self, image: Tensor, target: SampleTarget, key: int, view: int
    ) -> tuple[Tensor, SampleTarget]:
        """One image in one view, and what lies in it: (C, H, W) uint8 -> (C, h, w) uint8.

        The draws are those of the image alone, so boxes and masks change nothing about it.
        """
        first, inside = self.first, moves(target)
        with seeded(derive_seed(self.seed, key, view)):
            for transform, made in zip(self.transforms, self._made, strict=True):
                if made is not None:
                    if transform.moves and inside:
                        image, target = move(made, image, target)
                    else:
                        image = made(image)
                    continue
                assert transform.batched
                numbers = [
                    torch.tensor([number(self.seed, key, view, first + i)])
                    for i in range(transform.draws)
                ]
                if transform.moves and inside:
                    image, target = move(transform.move(numbers.__getitem__), image, target)
                else:
                    image = transform.batch(image[None], numbers.__getitem__)[0]
                first += transform.draws
        return image, target


class Chain:
    """Any transforms for the images of a batch: what `Single` makes of each, in less time.

    Those at either end that have a tensor form change all images at once, if they are of one shape.
    """

    def __init__(self, transforms: Sequence[Transform], seed: int) -> None:
        alone = [i for i, transform in enumerate(transforms) if not transform.batched]
        start, stop = (alone[0], alone[-1] + 1) if alone else (len(transforms),) * 2
        self.seed = seed
        self.head, middle, self.tail = transforms[:start], transforms[start:stop], transforms[stop:]
        self.whole = Single(transforms, seed)
        self.middle = Single(middle, seed, draws(self.head))

    def __call__(self, images: Sequence[Tensor], keys: Tensor, views: Tensor) -> Tensor:
        """Images in a view each: N x (C, H, W) uint8, (N,), (N,) -> (N, C, h, w) uint8."""
        if len({image.shape for image in images}) > 1:
            return stack(one_by_one(self.whole, images, keys, views))
        batch = transform_batch(stack(images), self.head, self.seed, keys, views)
        if self.middle.transforms:
            batch = stack(one_by_one(self.middle, batch.unbind(), keys, views))
        first = draws((*self.head, *self.middle.transforms))
        return transform_batch(batch, self.tail, self.seed, keys, views, first)


def draws(transforms: Sequence[Transform]) -> int:
    """How many numbers the tensor forms take."""
    return sum(transform.draws for transform in transforms if transform.batched)


def one_by_one(
    single: Single, images: Sequence[Tensor], keys: Tensor, views: Tensor
) -> list[Tensor]:
    """Each image in its view: N x (C, H, W), (N,), (N,) -> N x (C, h, w)."""
    samples = zip(images, keys.tolist(), views.tolist(), strict=True)
    return [single(image, key, view) for image, key, view in samples]


def stack(images: Sequence[Tensor]) -> Tensor:
    """Images of one shape as a batch: N x (C, H, W) -> (N, C, H, W)."""
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise UserError(
            f"images of one batch have different shapes ({first} and {second}); "
            "add a transform that makes them alike, such as resize and center_crop"
        )
    return torch.stack(tuple(images))


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bytes to zero mean and unit deviation: (N, C, H, W) uint8, (C,), (C,) -> float32."""
    scale = (255 * std)[:, None, None]
    return images.to(torch.float32).div_(scale).sub_((mean / std)[:, None, None])
