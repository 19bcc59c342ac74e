"""Training images without labels: opening them, and which methods can learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stillhouse.data.catalogue import entry, open_source
from stillhouse.data.image_folder import read_image_folder
from stillhouse.data.random import derive_seed
from stillhouse.data.source import Source, take
from stillhouse.errors import UserError
from stillhouse.methods.unlabelled import reads_labels
from stillhouse.recipes.schema import Data
from stillhouse.recipes.splits import UnlabelledSpec
from stillhouse.tasks.base import Task


def open_unlabelled(data: Data, spec: UnlabelledSpec) -> Source:
    """The images of data.unlabelled, with whatever targets their data set has."""
    if spec.path is not None:
        check_apart(data, spec.path)
    images = open_images(data, spec)
    if spec.subset is None or spec.subset in (1.0, len(images)):
        return images
    size = len(images)
    count = round(spec.subset * size) if isinstance(spec.subset, float) else spec.subset
    if not 0 < count < size:
        raise UserError(
            f"data.unlabelled.subset={spec.subset} cannot be taken of {size:,} images; set a count "
            "up to that, or a larger share"
        )
    generator = torch.Generator().manual_seed(derive_seed(spec.seed or 0))
    chosen = torch.randperm(size, generator=generator)[:count].sort().values
    return take(images, chosen, images.name)


def open_images(data: Data, spec: UnlabelledSpec) -> Source:
    """All of the images: files below the path, or those of the training split of a data set."""
    options = dict(spec.options)
    broken = spec.broken or data.broken
    if spec.name is None:
        extra = {"count", *options} if spec.count is not None else set(options)
        if extra:
            raise UserError(
                f"data.unlabelled: a folder of images has no option {min(extra)!r}; leave it out, "
                "or set data.unlabelled.name to a data set"
            )
        assert spec.path is not None
        return read_image_folder(spec.path, broken or "fail")
    drawn = not entry(spec.name).files
    if spec.count is not None:
        options["count"] = spec.count
    if spec.seed is not None and drawn:
        options["seed"] = spec.seed
    if broken is not None and not drawn:
        options = {"broken": broken, **options}
    return open_source(spec.name, spec.path, "train", **options)


def check_apart(data: Data, path: Path) -> None:
    """Raise UserError for a folder that contains that of the data, with its val and test images."""
    if data.path is None:
        return
    whole, inner = (one.expanduser().resolve() for one in (path, data.path))
    if whole == inner or whole in inner.parents:
        raise UserError(
            f"data.unlabelled.path: {path} contains data.path, {data.path}, so that images of val "
            "and test would be trained on; set it to a folder of other images"
        )


def check_without_labels(specs: Sequence[Any], task: Task[Any], *, alone: bool) -> None:
    """Raise UserError for a method that cannot learn from images without labels.

    With `alone` there are no others, so that training needs a method with a teacher.
    """
    labelled = getattr(task, "labelled_sites", ())
    for spec in specs:
        if alone and not spec.teaches:
            raise UserError(
                f"method {spec.name} trains on labels, but with data.unlabelled.alone no training "
                "image has any; choose a method with a teacher, or set data.unlabelled.alone=false"
            )
        if reads_labels(spec):
            raise UserError(
                f"method {spec.name} needs the labels of every image, but those of data.unlabelled "
                f"have none; leave data.unlabelled out{other_variant(spec)}, or choose a method "
                "that needs no labels, such as kd"
            )
        for site in getattr(spec, "sites", ()):
            if site.partition("@")[0] in labelled:
                raise UserError(
                    f"method {spec.name} compares the networks at site {site!r}, whose rows are "
                    "known from labels, but images of data.unlabelled have none; set sites to "
                    f"another, such as {task.sites[0]}, or leave data.unlabelled out"
                )


def other_variant(spec: Any) -> str:
    """The remedy for a method of which another variant reads no labels, for messages."""
    reference = getattr(spec, "variant", None) == "reference"
    if reference and not reads_labels(replace(spec, variant="paper")):
        return ", set method.variant=paper"
    return ""
