"""What a data set is: labelled images that can be asked for by their index."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stillhouse.data.random import mix
from stillhouse.errors import UserError


class Sample(NamedTuple):
    """One image, its class, and its index in the source that gave it."""

    image: Tensor  # (C, H, W) uint8
    label: int
    key: int


class Source(Protocol):
    """Labelled images by index. `key` of the sample at `i` is `i`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""

    @property
    def fingerprint(self) -> str:
        """A digest that differs when the samples differ."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, eq=False)
class Pixels:
    """A source held in memory, whose batches are made without a loop over samples."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    fingerprint: str
    name: str

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            shape = tuple(self.images.shape)
            raise UserError(
                f"{self.name}: images must be uint8 of shape (N, C, H, W), "
                f"not {self.images.dtype} of shape {shape}"
            )
        if len(self.images) != len(self.labels):
            raise UserError(
                f"{self.name}: {len(self.images)} images come with {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], int(self.labels[index]), index)


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of another source, under keys of their own."""

    whole: Source
    indices: Tensor  # (N,) int64 into the whole
    fingerprint: str
    name: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, those of the whole."""
        return self.whole.classes

    @cached_property
    def labels(self) -> Tensor:
        """Class of each sample: -> (N,)."""
        return labels_of(self.whole)[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.whole[int(self.indices[index])]._replace(key=index)


class TorchSamples(Protocol):
    """A torch data set of the map style that yields (image, label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


class FromTorch:
    """Any torch data set that yields (PIL image or tensor, label), as a source."""

    def __init__(
        self, dataset: TorchSamples, classes: Sequence[str], name: str, fingerprint: str = ""
    ) -> None:
        self.dataset = dataset
        self.classes = tuple(classes)
        self.name = name
        self._fingerprint = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """The digest that was given, else one over the name, the classes and eight samples."""
        if self._fingerprint:
            return self._fingerprint
        # Reading everything may take hours; eight samples tell most data sets apart, and a data
        # set that augments by itself gets another digest each time, so nothing is cached for it.
        indices = sorted({round(i * (len(self) - 1) / 7) for i in range(8)}) if len(self) else []
        samples = [self[i] for i in indices]
        digests = [fingerprint_of_content([s.image], [str(s.label)]) for s in samples]
        return fingerprint_of_recipe(
            {"name": self.name, "classes": self.classes, "size": len(self), "samples": digests}
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        item = self.dataset[index]
        where = f"{self.name}, sample {index}"
        if not isinstance(item, Sequence | tuple) or len(item) < 2:
            raise UserError(f"{where}: expected (image, label), got {type(item).__name__}")
        label = _index_of(item[1], where)
        if not 0 <= label < len(self.classes):
            raise UserError(f"{where}: label {label} is outside of {len(self.classes)} classes")
        return Sample(_bytes_of(item[0], where), label, index)


def _index_of(label: object, where: str) -> int:
    try:
        return operator.index(label)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(f"{where}: a label must be the index of a class, not {label!r}") from None


def _bytes_of(image: object, where: str) -> Tensor:
    if isinstance(image, Image.Image):
        return from_pil(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if not isinstance(image, Tensor) or image.ndim != 3 or not image.numel():
        raise UserError(f"{where}: an image must be a PIL image or a (C, H, W) tensor")
    if image.dtype == torch.uint8:
        return image
    # Asked this way round, so that NaN is refused too.
    if not (image.is_floating_point() and image.min() >= 0 and image.max() <= 1):
        raise UserError(
            f"{where}: a tensor must hold uint8, or floats from 0 to 1 before normalisation"
        )
    return (image * 255).round().to(torch.uint8)


def from_pil(image: Image.Image) -> Tensor:
    """A PIL image as a tensor: -> (C, H, W) uint8."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def labels_of(source: Source) -> Tensor:
    """Class of each sample, read sample by sample only where the source does not know: -> (N,)."""
    labels = getattr(source, "labels", None)
    if isinstance(labels, Tensor):
        return labels
    return torch.tensor([source[i].label for i in range(len(source))], dtype=torch.int64)


def take(source: Source, indices: Tensor, name: str) -> Pixels | Part:
    """Some samples of a source, numbered anew: (M,) indices -> a source of M."""
    digest = hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()
    fingerprint = fingerprint_of_recipe({"whole": source.fingerprint, "indices": digest})
    if isinstance(source, Pixels):
        images, labels = source.images[indices], source.labels[indices]
        return replace(source, images=images, labels=labels, fingerprint=fingerprint, name=name)
    return Part(source, indices, fingerprint, name)


def split(
    source: Source, held_out: int | float, seed: int = 0
) -> tuple[Pixels | Part, Pixels | Part]:
    """The rest, and a stratified part of it to validate on, by count or by fraction below 1.

    Every class gives its share, so the two are disjoint, cover the source, and depend on the
    labels and the seed alone.
    """
    size = len(source)
    count = round(held_out * size) if isinstance(held_out, float) else held_out
    if not 0 < count < size:
        raise UserError(
            f"{source.name}: cannot hold out {held_out} of {size} samples; give a count below "
            f"{size} or a fraction between 0 and 1"
        )
    chosen = stratified(labels_of(source), count, seed)
    rest = torch.ones(size, dtype=torch.bool)
    rest[chosen] = False
    kept = rest.nonzero().flatten()
    return take(source, kept, f"{source.name}/train"), take(source, chosen, f"{source.name}/val")


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices of `count` samples with the class shares of all, ascending: (N,) -> (count,)."""
    names, sizes = labels.unique(return_counts=True)
    quota = (sizes * count).div(len(labels), rounding_mode="floor")
    # Largest remainders get what rounding down left over; ties go to the lower class.
    order = (sizes * count % len(labels)).argsort(descending=True, stable=True)
    quota[order[: count - int(quota.sum())]] += 1
    chosen = []
    for name, share in zip(names.tolist(), quota.tolist(), strict=True):
        members = (labels == name).nonzero().flatten()
        generator = torch.Generator().manual_seed(mix(seed, name))
        chosen.append(members[torch.randperm(len(members), generator=generator)[:share]])
    return torch.cat(chosen).sort().values


def fingerprint_of_content(tensors: Iterable[Tensor], classes: Sequence[str]) -> str:
    """A digest of what the tensors hold and of the class names."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def fingerprint_of_files(files: Iterable[tuple[str, int, int]], classes: Sequence[str]) -> str:
    """A digest of (relative path, size in bytes, label) of each file, and of the class names."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for path, size, label in sorted(files):
        digest.update(json.dumps([path, size, label]).encode())
    return digest.hexdigest()


def fingerprint_of_recipe(recipe: Mapping[str, object]) -> str:
    """A digest of how data were made, whatever the order of the options."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
