"""The detections and objects of evaluated images as rows, which ranks concatenate in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects
from stillhouse.errors import UserError


class DetectionRows(NamedTuple):
    """D detections in pixels of their images as read; `place` numbers those of an image."""

    key: Tensor  # (D,) int64
    place: Tensor  # (D,) int64
    label: Tensor  # (D,) int64
    score: Tensor  # (D,) double
    box: Tensor  # (D, 4) double


class ObjectRows(NamedTuple):
    """M objects in pixels of their images as read; `place` numbers those of an image."""

    key: Tensor  # (M,) int64
    place: Tensor  # (M,) int64
    label: Tensor  # (M,) int64
    box: Tensor  # (M, 4) double
    crowd: Tensor  # (M,) uint8
    difficult: Tensor  # (M,) uint8
    area: Tensor  # (M,) double, as annotated, or of the box

    @property
    def ignored(self) -> Tensor:
        """The crowds and difficult objects, which need not be found: -> (M,) bool."""
        return (self.crowd > 0) | (self.difficult > 0)


class Rows(NamedTuple):
    """What an evaluation keeps; an image without objects matters for its false positives."""

    images: Tensor  # (I,) int64, the keys of the evaluated images
    detections: DetectionRows
    objects: ObjectRows


def collect_rows(found: Objects, batch: Batch[Objects]) -> Rows:
    """The rows of one batch, on the CPU.

    Boxes of `found` and of the target are in pixels of the batch's images, before padding.
    Detections with a NaN or infinity are left out; inverted ones count, with an area of 0.
    """
    if found.scores is None:
        raise UserError("the detections have no scores; set `scores` of the detected Objects")
    keys, scale = batch.keys.cpu(), pixel_scale(batch)
    # to the CPU first: not every device has double precision
    found, target = (replace(x, masks=None).to(scale.device) for x in (found, batch.target))
    return Rows(keys, _detections(found, keys, scale), _objects(target, keys, scale))


def pixel_scale(batch: Batch[Objects]) -> Tensor:
    """What boxes are multiplied by to be in pixels of images as read: -> (N, 4) double, CPU."""
    if batch.originals is None:
        return torch.ones(len(batch), 4, dtype=torch.double)
    height_width = torch.tensor(batch.images.shape[-2:]) if batch.sizes is None else batch.sizes
    return (batch.originals.cpu().double() / height_width.cpu().double()).flip(-1).repeat(1, 2)


def _detections(found: Objects, keys: Tensor, scale: Tensor) -> DetectionRows:
    assert found.scores is not None
    box, score = found.boxes.double() * scale[found.image], found.scores.double()
    finite = box.isfinite().all(1) & score.isfinite()
    box[:, 2:] = box[:, 2:].maximum(box[:, :2])  # a negative area would be below all ranges of COCO
    image, label = found.image, found.labels
    rows = DetectionRows(keys[image], number_in_group(image), label.long(), score, box)
    return DetectionRows(*(column[finite] for column in rows))


def _objects(target: Objects, keys: Tensor, scale: Tensor) -> ObjectRows:
    box, absent = target.boxes.double() * scale[target.image], torch.zeros_like(target.image)
    flags = (absent if flag is None else flag for flag in (target.crowd, target.difficult))
    crowd, difficult = (flag.to(torch.uint8) for flag in flags)
    area = (box[:, 2:] - box[:, :2]).prod(1) if target.area is None else target.area.double()
    place = number_in_group(target.image)
    label = target.labels.long()
    return ObjectRows(keys[target.image], place, label, box, crowd, difficult, area)


def number_in_group(group: Tensor) -> Tensor:
    """The number of each row among those of its group, from 0, in their order: (N,) -> (N,)."""
    ordered, order = group.sort(stable=True)
    numbers = torch.arange(len(group), device=group.device)
    numbers = numbers - torch.searchsorted(ordered, ordered)
    return torch.empty_like(numbers).scatter(0, order, numbers)


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """The rows of several batches; of none: rows of length 0."""
    columns = [to_columns(part) for part in (_empty(), *parts)]
    return from_columns({name: torch.cat([x[name] for x in columns]) for name in NAMES})


def count_classes(rows: Rows) -> int:
    """The number of classes if the highest class index is that of the last class."""
    return int(torch.cat([rows.detections.label, rows.objects.label]).bincount().numel())


def _empty() -> Rows:
    integer, real, flag = (
        torch.zeros(0, dtype=dtype) for dtype in (torch.long, torch.double, torch.uint8)
    )
    box = real.reshape(0, 4)
    return Rows(
        integer,
        DetectionRows(integer, integer, integer, real, box),
        ObjectRows(integer, integer, integer, box, flag, flag, real),
    )


def to_columns(rows: Rows) -> dict[str, Tensor]:
    """All columns by name, as the state of a meter holds them: `detections.score` is (D,)."""
    columns = {"images": rows.images}
    columns |= {f"detections.{name}": x for name, x in rows.detections._asdict().items()}
    return columns | {f"objects.{name}": x for name, x in rows.objects._asdict().items()}


def from_columns(columns: Mapping[str, Tensor]) -> Rows:
    """The rows whose columns these are."""
    return Rows(
        columns["images"].cpu(),
        DetectionRows(*(columns[f"detections.{n}"].cpu() for n in DetectionRows._fields)),
        ObjectRows(*(columns[f"objects.{n}"].cpu() for n in ObjectRows._fields)),
    )


NAMES = tuple(to_columns(_empty()))


class RowPlaces(NamedTuple):
    """Places of rows in their order, those of each image once."""

    images: Tensor  # (I,) int64
    detections: Tensor  # (D,) int64
    objects: Tensor  # (M,) int64


def order_rows(rows: Rows) -> Rows:
    """The rows by key and place, whatever their order was, each image once.

    An image that was evaluated several times, to fill the last batch of a rank for example, has
    each of its rows as often. Images with one key but different objects raise a UserError.
    """
    return rows_at(rows, find_places(rows))


def rows_at(rows: Rows, places: RowPlaces) -> Rows:
    """Some of the rows."""
    return Rows(
        rows.images[places.images],
        DetectionRows(*(column[places.detections] for column in rows.detections)),
        ObjectRows(*(column[places.objects] for column in rows.objects)),
    )


def find_places(rows: Rows) -> RowPlaces:
    """The places of the rows that `order_rows` returns."""
    images, order = rows.images.sort(stable=True)
    new = torch.ones(len(images), dtype=torch.bool)
    new[1:] = images[1:] != images[:-1]
    objects, first = _ordered(rows.objects)
    keys, visits = images.unique(return_counts=True)
    _refuse_mixed_images([column[objects] for column in rows.objects], first, keys, visits)
    detections, kept = _ordered(rows.detections)
    return RowPlaces(order[new], detections[kept], objects[first])


def _ordered(table: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The order by the first column, the second and so on, and where a key and place begins in it.

    (N, ...) each -> (N,) int64, (N,) bool.
    """
    vectors = _vectors(table)
    order = torch.from_numpy(np.lexsort([vector.numpy() for vector in reversed(vectors)]))
    key, place = (column[order] for column in table[:2])
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = (key[1:] != key[:-1]) | (place[1:] != place[:-1])
    return order, first


def _vectors(table: Sequence[Tensor]) -> list[Tensor]:
    """Columns of which matrices are split: (N,) or (N, K) each -> (N,) each."""
    return [part for x in table for part in (x.unbind(1) if x.ndim > 1 else (x,))]


def _refuse_mixed_images(
    objects: list[Tensor], first: Tensor, images: Tensor, visits: Tensor
) -> None:
    key, group = objects[0], first.cumsum(0) - 1
    wrong = torch.zeros(len(key), dtype=torch.bool)
    for vector in _vectors(objects):
        wrong |= vector != vector[first][group]
    wrong |= group.bincount()[group] != visits[torch.searchsorted(images, key)]
    if wrong.any():
        raise UserError(
            f"images with different objects have the key {int(key[wrong][0])}; give each image "
            "of the data set a key of its own in `Batch.keys`"
        )
