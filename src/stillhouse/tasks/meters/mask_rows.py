"""The masks of evaluated images as run-length codes, which ranks concatenate in any order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects, image_sizes, join_objects
from stillhouse.errors import UserError
from stillhouse.tasks.meters.detection_rows import (
    Rows,
    collect_rows,
    concatenate_rows,
    find_places,
    from_columns,
    pixel_scale,
    rows_at,
    to_columns,
)


class MaskCodes(NamedTuple):
    """K masks in the compressed run lengths of COCO, one after another."""

    length: Tensor  # (K,) int64, bytes of each
    code: Tensor  # (B,) uint8


class MaskRows(NamedTuple):
    """What an evaluation of masks keeps."""

    boxes: Rows
    size: Tensor  # (I, 2) int64, height and width of the masks of each image
    scale: Tensor  # (I,) double, pixels of the image as read for each of the masks
    detections: MaskCodes
    objects: MaskCodes


class OrderedMasks(NamedTuple):
    """The rows in order, each image once, and the code of each detection and object."""

    boxes: Rows
    size: Tensor  # (I, 2)
    scale: Tensor  # (I,)
    detections: list[bytes]
    objects: list[bytes]


def collect_masks(found: Iterable[Objects], batch: Batch[Objects]) -> MaskRows:
    """The rows of one batch, on the CPU; `found` has the detections of each image in turn.

    Masks are compared at the size of the batch's images before padding. The area of an object is
    annotated, or that of its mask in pixels of the image as read. Detections with a score or a box
    that is NaN or infinite are left out.
    """
    size, scale = image_sizes(batch).cpu().long(), pixel_scale(batch)
    areas = scale[:, :2].prod(1)
    detections, codes = _detections(found, size.tolist())
    target, own = _objects(batch.target, size.tolist(), areas)
    rows = collect_rows(detections, replace(batch, target=target))
    return MaskRows(rows, size, areas, codes, own)


def _detections(found: Iterable[Objects], sizes: list[list[int]]) -> tuple[Objects, MaskCodes]:
    """The detections of all images without masks, and their codes."""
    parts, codes = [], []
    for one, size in zip(found, sizes, strict=True):
        if one.scores is None or one.masks is None:
            raise UserError(
                "the detections lack scores or masks; set `scores` and `masks` of each image's "
                "Objects"
            )
        finite = one.scores.isfinite() & one.boxes.isfinite().all(1)
        kept = one if bool(finite.all()) else one.objects(finite)
        assert kept.masks is not None
        codes.append(encode_masks(kept.masks, size))
        parts.append(Objects(kept.boxes, kept.labels, kept.image, scores=kept.scores))
    return join_objects(parts), join_codes(codes)


def _objects(target: Objects, sizes: list[list[int]], scale: Tensor) -> tuple[Objects, MaskCodes]:
    """The objects of all images without masks but with areas, and their codes."""
    masks, image = target.masks, target.image
    if masks is None:
        raise UserError(
            "average precision of masks needs the masks of objects, but the data have boxes only; "
            "choose a data set with masks, such as coco/instances"
        )
    codes = [encode_masks(masks[image == index], size) for index, size in enumerate(sizes)]
    area = target.area
    if area is None:
        area = masks.flatten(1).sum(1).cpu().double() * scale[image.cpu()]
    return replace(target, masks=None, area=area.to(image.device)), join_codes(codes)


def encode_masks(masks: Tensor, size: Sequence[int]) -> MaskCodes:
    """The codes of the upper left part of masks, of height and width `size`: (K, H, W) bool."""
    from faster_coco_eval.core import mask as library

    height, width = size
    if masks.shape[-2] < height or masks.shape[-1] < width:
        raise UserError(
            f"masks have {masks.shape[-2]} x {masks.shape[-1]} pixels, but their image has "
            f"{height} x {width}; give them the size of the batch's images"
        )
    # column by column, by the device of the masks; a byte of bool is 0 or 1
    columns = masks[:, :height, :width].mT.contiguous().cpu()
    pixels = columns.view(torch.uint8).numpy()
    codes = [found["counts"] for found in library.encode(pixels.transpose(2, 1, 0))]
    length = torch.tensor([len(code) for code in codes], dtype=torch.int64)
    return MaskCodes(length, torch.from_numpy(np.frombuffer(b"".join(codes), np.uint8).copy()))


def split_codes(codes: MaskCodes) -> list[bytes]:
    """The code of each mask."""
    data, ends = codes.code.numpy().tobytes(), codes.length.cumsum(0)
    begins = ends - codes.length
    return [data[i:j] for i, j in zip(begins.tolist(), ends.tolist(), strict=True)]


def join_codes(parts: Sequence[MaskCodes]) -> MaskCodes:
    """The codes of several parts, one after another."""
    return MaskCodes(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def concatenate_masks(parts: Sequence[MaskRows]) -> MaskRows:
    """The rows of several batches; of none: rows of length 0."""
    whole = (_empty(), *parts)
    return MaskRows(
        concatenate_rows([part.boxes for part in parts]),
        torch.cat([part.size for part in whole]),
        torch.cat([part.scale for part in whole]),
        join_codes([part.detections for part in whole]),
        join_codes([part.objects for part in whole]),
    )


def _empty() -> MaskRows:
    size, scale = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.double)
    codes = MaskCodes(size[:, 0], torch.zeros(0, dtype=torch.uint8))
    return MaskRows(concatenate_rows([]), size, scale, codes, codes)


def to_mask_columns(rows: MaskRows) -> dict[str, Tensor]:
    """All columns by name, as the state of a meter holds them."""
    columns = {**to_columns(rows.boxes), "images.size": rows.size, "images.scale": rows.scale}
    for table, codes in (("detections", rows.detections), ("objects", rows.objects)):
        columns |= {f"{table}.{name}": x for name, x in codes._asdict().items()}
    return columns


def from_mask_columns(columns: Mapping[str, Tensor]) -> MaskRows:
    """The rows whose columns these are."""
    detections, objects = (
        MaskCodes(*(columns[f"{table}.{name}"].cpu() for name in MaskCodes._fields))
        for table in ("detections", "objects")
    )
    size, scale = (columns[f"images.{name}"].cpu() for name in ("size", "scale"))
    return MaskRows(from_columns(columns), size, scale, detections, objects)


MASK_COLUMNS = tuple(to_mask_columns(_empty()))


def order_masks(rows: MaskRows) -> OrderedMasks:
    """The rows by key and place, each image once, as `order_rows` puts them."""
    places = find_places(rows.boxes)
    detections, objects = (split_codes(codes) for codes in (rows.detections, rows.objects))
    return OrderedMasks(
        rows_at(rows.boxes, places),
        rows.size[places.images],
        rows.scale[places.images],
        [detections[place] for place in places.detections.tolist()],
        [objects[place] for place in places.objects.tolist()],
    )
