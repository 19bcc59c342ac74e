"""Sources: data sets as images with targets, by index."""

from __future__ import annotations

import hashlib
import json
import operator
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stillhouse.batches import IGNORE, Objects, Target, read_objects, select_target
from stillhouse.data.targets import (
    SampleTarget,
    collate,
    count_samples,
    describe_target,
    is_mask,
    presence,
    resize_mask,
    target_at,
)
from stillhouse.errors import UserError, quote


class Sample(NamedTuple):
    """One image, its target, and its index in its source."""

    image: Tensor  # (C, H, W) uint8
    target: SampleTarget  # a class index, (classes,) float of 0 and 1, objects, a mask, or None
    key: int


class Source(Protocol):
    """Images with targets by index; the `key` of the sample at `i` is `i`.

    A source may also have `targets`, those of all samples collated, and `notes`, sentences on
    samples that it left out. One whose targets take long to read may have `presence` instead, the
    classes of each sample as far as they are known, (N, classes) bool, and `positions`, true for
    boxes and masks.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their indices."""

    @property
    def fingerprint(self) -> str:
        """A digest that changes when the samples change."""

    @property
    def name(self) -> str:
        """The name in messages and reports."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """A source in memory, so that whole batches can be indexed at once.

    Raises UserError for images of another dtype or shape, or another number of targets.
    """

    images: Tensor  # (N, C, H, W) uint8
    targets: Target  # class indices (N,), (N, classes) float of 0 and 1, objects, masks, or None
    classes: tuple[str, ...]
    fingerprint: str
    name: str

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            shape = tuple(self.images.shape)
            raise UserError(
                f"{self.name}: images must be uint8 of shape (N, C, H, W), "
                f"got {self.images.dtype} of shape {shape}"
            )
        if self.targets is not None and len(self.images) != count_samples(self.targets):
            raise UserError(
                f"{self.name}: there are {len(self.images)} images, but "
                f"{count_samples(self.targets)} targets; give one target per image"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], target_at(self.targets, index), index)


@dataclass(frozen=True, eq=False)
class SourceSubset:
    """Some samples of another source, with keys from 0 on."""

    whole: Source
    indices: Tensor  # (N,) int64, indices in `whole`
    fingerprint: str
    name: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, those of the whole source."""
        return self.whole.classes

    @cached_property
    def targets(self) -> Target:
        """The targets of these samples, collated; None where the whole source has no `targets`."""
        targets = getattr(self.whole, "targets", None)
        known = isinstance(targets, Tensor | Objects)
        return select_target(targets, self.indices) if known else None

    @property
    def presence(self) -> Tensor | None:
        """The `presence` of these samples, where the whole source has it."""
        present = getattr(self.whole, "presence", None)
        return present[self.indices] if isinstance(present, Tensor) else None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.whole[int(self.indices[index])]._replace(key=index)


class TorchSamples(Protocol):
    """A map-style torch data set of (image, target)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


class FromTorch:
    """A source of any map-style torch data set of (PIL image or tensor, target).

    A target is a class index, 0 or 1 for each class, a mapping with `boxes` (M, 4) as x1, y1, x2,
    y2, `labels` (M,) and optionally `masks` and `iscrowd`, the class of each pixel as an image or
    tensor (H, W), 255 for ignored ones, or None. Images are uint8, or floats in
    [0, 1] before normalisation. Samples of another form raise UserError when they are read.
    """

    def __init__(
        self, dataset: TorchSamples, classes: Sequence[str], name: str, fingerprint: str = ""
    ) -> None:
        self.dataset = dataset
        self.classes = tuple(classes)
        self.name = name
        self._fingerprint = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """The digest that was given, or one of the name, the classes and eight samples."""
        if self._fingerprint:
            return self._fingerprint
        # Reading all samples may take hours; eight distinguish most data sets. A data set with
        # random augmentation gets another digest each time, so nothing is cached for it.
        indices = sorted({round(i * (len(self) - 1) / 7) for i in range(8)}) if len(self) else []
        samples = [self[i] for i in indices]
        digests = [fingerprint_of_content([s.image], [describe_target(s.target)]) for s in samples]
        return fingerprint_of_recipe(
            {"name": self.name, "classes": self.classes, "size": len(self), "samples": digests}
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        item = self.dataset[index]
        where = f"{self.name}, sample {index}"
        if not isinstance(item, Sequence | tuple) or len(item) < 2:
            raise UserError(f"{where}: expected (image, target), got {type(item).__name__}")
        image, target = _bytes_of(item[0], where), self._target(item[1], where)
        if is_mask(target) and target.shape != image.shape[1:]:
            found, wanted = (" x ".join(map(str, x.shape[-2:])) for x in (target, image))
            raise UserError(
                f"{where}: the mask has {found} pixels, but the image {wanted}; give both one size"
            )
        return Sample(image, target, index)

    def _target(self, label: object, where: str) -> SampleTarget:
        count = len(self.classes)
        if label is None:
            return None
        if isinstance(label, Mapping):
            objects = read_objects(label, where)
            labels = objects.labels
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < count:
                raise UserError(
                    f"{where}: labels must be from 0 to {count - 1}, got {labels.tolist()}"
                )
            return objects
        if isinstance(label, Image.Image) or getattr(label, "ndim", 0) > 1:
            return _mask_of(label, count, where)
        if isinstance(label, Tensor | np.ndarray) and label.ndim == 1 and len(label) == 1 != count:
            label = label[0]  # some data sets give a class index of shape (1,)
        if isinstance(label, list | tuple) or getattr(label, "ndim", 0) == 1:
            return _hot_of(label, count, where)
        index = _index_of(label, where)
        if not 0 <= index < count:
            raise UserError(f"{where}: label must be from 0 to {count - 1}, got {index}")
        return index


def _hot_of(label: Any, count: int, where: str) -> Tensor:
    hot = None
    with suppress(TypeError, ValueError, RuntimeError):  # for values that are no numbers
        hot = torch.as_tensor(label).float()
    if hot is None or hot.shape != (count,) or not bool(((hot == 0) | (hot == 1)).all()):
        raise UserError(
            f"{where}: several labels must be {count} numbers, 0 or 1 for each class, got "
            f"{len(label)}: {reprlib.repr(label)}"
        )
    return hot


def _index_of(label: object, where: str) -> int:
    try:
        return operator.index(label)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(
            f"{where}: a label must be a class index, or 0 or 1 for each class, got {quote(label)}"
        ) from None


def _mask_of(label: Any, count: int, where: str) -> Tensor:
    # a copy, as the pixels of a PIL image cannot be written to
    mask = torch.as_tensor(np.array(label) if isinstance(label, Image.Image) else label)
    mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
    if mask.ndim != 2 or mask.is_floating_point() or mask.dtype == torch.bool:
        raise UserError(
            f"{where}: a mask must be (H, W) class indices, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}"
        )
    wrong = mask[((mask < 0) | (mask >= count)) & (mask != IGNORE)]
    if len(wrong):
        raise UserError(
            f"{where}: the classes of a mask must be from 0 to {count - 1}, or {IGNORE} for "
            f"ignored pixels, got {int(wrong[0])}"
        )
    return mask.to(torch.uint8 if count <= IGNORE else torch.int64)


def _bytes_of(image: object, where: str) -> Tensor:
    if isinstance(image, Image.Image):
        return from_pil(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.numel():
        raise UserError(f"{where}: an image must be a PIL image or a (C, H, W) tensor")
    if image.dtype == torch.uint8:
        return image
    # Written so that NaN is refused, too.
    if not (image.is_floating_point() and image.min() >= 0 and image.max() <= 1):
        raise UserError(
            f"{where}: a tensor must hold uint8, or floats from 0 to 1 before normalisation"
        )
    return (image * 255).round().to(torch.uint8)


def from_pil(image: Image.Image) -> Tensor:
    """A PIL image as a tensor, with one channel if it is grey: -> (C, H, W) uint8."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


MASKS, SIDE = 8, 64  # the number of masks that are read as examples, and the size of their copies


def targets_of(source: Source, most: int | None = None) -> Target:
    """The targets of all samples, collated.

    If the source has no `targets`, at most `most` samples are read, and 8 if they have class masks.
    As masks differ in size, those of classes are resized to 64 x 64, and those of objects left out.
    """
    targets = getattr(source, "targets", None)
    if isinstance(targets, Tensor | Objects):
        return targets
    count = len(source) if most is None else min(most, len(source))
    found: list[SampleTarget] = []
    for index in range(count):
        found.append(_without_masks(source[index].target))
        if most is not None and len(found) >= MASKS and is_mask(found[-1]):
            break
    return collate(found)


def _without_masks(target: SampleTarget) -> SampleTarget:
    if isinstance(target, Objects):
        return replace(target, masks=None)
    return resize_mask(target, SIDE, SIDE) if is_mask(target) else target


def classes_of(source: Source) -> Tensor:
    """Which classes each sample has, as `stratify` takes it: (N,) class indices, or (N, classes).

    A sample without a target has none, nor has one whose classes `presence` does not know.
    """
    present = getattr(source, "presence", None)
    if isinstance(present, Tensor):
        return present.float()
    targets, classes = getattr(source, "targets", None), len(source.classes)
    if not isinstance(targets, Tensor | Objects):
        targets = collate([_classes_in(source[i].target, classes) for i in range(len(source))])
    if targets is None:
        return torch.zeros(len(source), classes)
    if isinstance(targets, Tensor) and targets.ndim == 1:
        return targets
    return presence(targets, classes)


def _classes_in(target: SampleTarget, classes: int) -> SampleTarget:
    if target is None or isinstance(target, int):
        return target
    return presence(collate([target]), classes)[0].float()


def notes_of(source: Source) -> tuple[str, ...]:
    """The notes of a source on samples that it left out; those of the whole for a subset."""
    whole = source.whole if isinstance(source, SourceSubset) else source
    return tuple(getattr(whole, "notes", ()))


def take(source: Source, indices: Tensor, name: str) -> Pixels | SourceSubset:
    """Some samples of a source, with keys from 0 on: (M,) indices -> a source of M samples."""
    digest = hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()
    fingerprint = fingerprint_of_recipe({"whole": source.fingerprint, "indices": digest})
    if isinstance(source, Pixels):
        targets = select_target(source.targets, indices)
        images = source.images[indices]
        return replace(source, images=images, targets=targets, fingerprint=fingerprint, name=name)
    return SourceSubset(source, indices, fingerprint, name)


def fingerprint_of_content(tensors: Iterable[Tensor], classes: Sequence[str]) -> str:
    """A digest of the content of tensors and of the class names."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def fingerprint_of_files(
    files: Iterable[tuple[str, int, int | list[int]]], classes: Sequence[str]
) -> str:
    """A digest of (relative path, size in bytes, class index or indices) per file, and the classes.

    The order of files does not matter.
    """
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for path, size, label in sorted(files):
        digest.update(json.dumps([path, size, label]).encode())
    return digest.hexdigest()


def fingerprint_of_recipe(recipe: Mapping[str, object]) -> str:
    """A digest of the options that data were generated with, independent of their order."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
