"""Whether the targets of a source have positions in its images, and what this excludes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.data.mixing import NOT_MIXED, Mix
from stillhouse.data.mosaic import WHOLE_IMAGES, Mosaic
from stillhouse.data.source import Source, SourceSubset
from stillhouse.data.targets import is_spatial
from stillhouse.data.transforms import Transform
from stillhouse.data.transforms.checks import unmovable
from stillhouse.data.unlabelled import PartlyLabelled
from stillhouse.errors import UserError

SEARCHED = 8  # samples that are read to find the kind of the targets of a source
ONE_VIEW = (
    "images with boxes or masks have no second view, because the targets would fit only one of the "
    "two; choose a method that needs one view"
)
NOT_PADDED = (
    "data.pad is for images with boxes or masks, but the data have classes of whole images; leave "
    "data.pad out"
)


def has_positions(source: Source, most: int = 0) -> bool | None:
    """Whether the targets of a source are boxes or masks; None if that is not known.

    If the source has neither `targets` nor `positions`, up to `most` samples are read, evenly over
    the source, until one has a target.
    """
    if isinstance(source, SourceSubset):
        return has_positions(source.whole, most)
    if isinstance(source, PartlyLabelled):
        return has_positions(source.labelled, most)
    if getattr(source, "positions", False):
        return True
    targets = getattr(source, "targets", None)
    if isinstance(targets, Tensor | Objects):
        return is_spatial(targets)
    count = min(most, len(source))
    for number in range(count):
        target = source[number * len(source) // count].target
        if target is not None:
            return is_spatial(target)
    return None


def check_positions(
    source: Source,
    views: Sequence[Sequence[Transform]],
    mixing: Mix | None,
    pad: int,
    mosaic: Mosaic | None,
) -> None:
    """Raise UserError for options that do not go with the targets of a source, where it has them.

    `views` are the transforms of each view. What is unknown here is refused at the first batch.
    """
    positions = has_positions(source)
    if positions is None:
        return
    refused = (
        (pad > 1 and not positions, NOT_PADDED),
        (mosaic is not None and not positions, WHOLE_IMAGES),
        (len(views) > 1 and positions, ONE_VIEW),
        (mixing is not None and positions, NOT_MIXED),
    )
    for condition, sentence in refused:
        if condition:
            raise UserError(sentence)
    for transform in views[0]:
        if positions and transform.geometric and not transform.movable:
            raise unmovable(transform.kind)
