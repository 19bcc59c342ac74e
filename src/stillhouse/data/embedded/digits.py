"""Embedded data: raw digits, two-digit numbers drawn from them, and scenes with their labels."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from stillhouse.batches import Objects
from stillhouse.data.cache import Tensors, cached
from stillhouse.data.embedded.glyphs import (
    CHUNK,
    DIGITS,
    Pose,
    check_split,
    chunk_generator,
    digit_bank,
    draw_glyphs,
    pick_glyphs,
    random_angle,
    random_clouds,
    random_normal,
    random_uniform,
    to_bytes,
)
from stillhouse.data.embedded.scenes import make_scenes, scene_classes, semantic_masks
from stillhouse.data.source import Pixels, fingerprint_of_recipe
from stillhouse.data.stratify import stratify
from stillhouse.errors import UserError

NUMBERS = tuple(f"{number:02d}" for number in range(100))
_VERSION = 1  # of the pixels: a change of them changes it, so that old caches are not used


def make_raw(split: str, count: int | None = None) -> Pixels:
    """The handwritten digits themselves, 8x8: all of a split, or a stratified subset of it."""
    check_split(split)
    images, labels = digit_bank(split).images, digit_bank(split).labels
    if count is not None:
        if not 0 < count <= len(labels):
            raise UserError(f"digits/raw has {len(labels)} {split} images, but `count` is {count}")
        chosen = stratify(labels, len(DIGITS), count, seed=0)
        images, labels = images[chosen], labels[chosen]
    recipe = {"data": "digits/raw", "version": _VERSION, "split": split, "count": len(labels)}
    # 16 is the maximum of scikit-learn's scans, 255 that of uint8 images.
    pixels = (images.long() * 255 + 8).div(16, rounding_mode="floor").to(torch.uint8)[:, None]
    return Pixels(pixels, labels, DIGITS, fingerprint_of_recipe(recipe), f"digits/raw/{split}")


def make_numbers(
    split: str,
    count: int,
    seed: int = 0,
    height: int = 16,
    width: int = 32,
    cache: bool = False,
) -> Pixels:
    """Two-digit numbers on a noisy background with a distractor digit: 100 classes, one channel.

    The first images of a longer set are those of a shorter one with the same options.
    """
    check_split(split)
    if count < 1 or height < 8 or width < 16:
        raise UserError(
            "digits/numbers needs `count` of at least 1, `height` of 8 and `width` of 16"
        )
    recipe = {
        "data": "digits/numbers",
        "version": _VERSION,
        "split": split,
        "count": count,
        "seed": seed,
        "size": (height, width),
    }
    fingerprint = fingerprint_of_recipe(recipe)

    def make() -> Tensors:
        chunks = range((count + CHUNK - 1) // CHUNK)
        drawn = [_draw(split, chunk_generator(seed, split, i), height, width) for i in chunks]
        images, labels = (torch.cat(parts)[:count] for parts in zip(*drawn, strict=True))
        return {"images": images, "labels": labels}

    made = cached(f"digits/numbers-{split}", fingerprint, make) if cache else make()
    return Pixels(
        made["images"],
        made["labels"],
        classes=NUMBERS,
        fingerprint=fingerprint,
        name=f"digits/numbers/{split}",
    )


def make_multilabel(
    split: str, count: int, seed: int = 0, size: int = 48, cache: bool = False
) -> Pixels:
    """Scenes of one to four digits, each labelled with all classes visible in it."""
    made = make_scenes(split, count, seed, size, cache)
    return Pixels(
        made.images, scene_classes(made), made.classes, made.fingerprint, f"digits/labels/{split}"
    )


def make_objects(
    split: str, count: int, seed: int = 0, size: int = 48, cache: bool = False
) -> Pixels:
    """Scenes of one to four digits with the boxes of those of which enough is visible."""
    made = make_scenes(split, count, seed, size, cache)
    image, place = (made.labels >= 0).nonzero(as_tuple=True)
    objects = Objects(made.boxes[image, place], made.labels[image, place], image, count)
    return Pixels(made.images, objects, made.classes, made.fingerprint, f"digits/objects/{split}")


def make_instances(
    split: str, count: int, seed: int = 0, size: int = 48, cache: bool = False
) -> Pixels:
    """The scenes and boxes of `make_objects`, with the visible pixels of each digit as its mask."""
    made = make_scenes(split, count, seed, size, cache)
    image, place = (made.labels >= 0).nonzero(as_tuple=True)
    masks = made.instances[image] == (place + 1)[:, None, None]
    objects = Objects(
        made.boxes[image, place], made.labels[image, place], image, count, masks=masks
    )
    return Pixels(made.images, objects, made.classes, made.fingerprint, f"digits/instances/{split}")


def make_semantic(
    split: str, count: int, seed: int = 0, size: int = 48, cache: bool = False
) -> Pixels:
    """Scenes of one to four digits with the class of each pixel, uint8; background is class 0.

    Pixels of digits of which too little is visible are ignored.
    """
    made = make_scenes(split, count, seed, size, cache)
    masks = semantic_masks(made).to(torch.uint8)
    classes = ("background", *made.classes)
    return Pixels(made.images, masks, classes, made.fingerprint, f"digits/semantic/{split}")


def _draw(split: str, generator: Generator, height: int, width: int) -> tuple[Tensor, Tensor]:
    # A chunk is always drawn completely, so that a short set is the beginning of a long one.
    digits = torch.randint(0, 10, (CHUNK, 2), generator=generator)
    canvas = 0.35 * random_clouds(CHUNK, 1, height, width, generator)[:, 0]
    canvas = canvas * torch.rand((CHUNK, 1, 1), generator=generator)
    glyphs = pick_glyphs(split, torch.randint(0, 10, (CHUNK,), generator=generator), generator)
    ink = draw_glyphs(glyphs, _distractor(generator, height, width), height, width)
    canvas = torch.maximum(canvas, ink * random_uniform(0.2, 0.6, CHUNK, 1, 1, generator=generator))
    for slot in range(2):
        glyphs = pick_glyphs(split, digits[:, slot], generator)
        ink = draw_glyphs(glyphs, _upright(generator, slot, height, width), height, width)
        canvas = torch.maximum(
            canvas, ink * random_uniform(0.5, 1.0, CHUNK, 1, 1, generator=generator)
        )
    canvas = canvas + 0.08 * random_normal(canvas.shape, generator)
    return to_bytes(canvas)[:, None], digits[:, 0] * 10 + digits[:, 1]


def _distractor(generator: Generator, height: int, width: int) -> Pose:
    return Pose(
        x=random_uniform(0, width, CHUNK, generator=generator),
        y=random_uniform(0, height, CHUNK, generator=generator),
        half=random_uniform(3, 6, CHUNK, generator=generator) * min(height / 16, width / 32),
        angle=random_angle(180, CHUNK, generator=generator),
        shear=random_uniform(-0.4, 0.4, CHUNK, generator=generator),
    )


def _upright(generator: Generator, slot: int, height: int, width: int) -> Pose:
    shift = random_uniform(-2, 2, CHUNK, generator=generator) * (width / 32)
    return Pose(
        x=shift + width * (0.27 + 0.46 * slot),
        y=random_uniform(-0.18, 0.18, CHUNK, generator=generator) * height + height / 2,
        half=random_uniform(5.5, 7.5, CHUNK, generator=generator) * min(height / 16, width / 32),
        angle=random_angle(15, CHUNK, generator=generator),
        shear=random_uniform(-0.25, 0.25, CHUNK, generator=generator),
        aspect=random_uniform(0.75, 1.05, CHUNK, generator=generator),
    )
