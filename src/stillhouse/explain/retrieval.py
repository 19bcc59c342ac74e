"""Whether the nearest images of a query, by the features of a network, have its classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillhouse.explain.phrases import join_names, percent, with_article, with_control
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.row_statistics import evenly_spaced
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table
from stillhouse.explain.subset import Subset
from stillhouse.explain.thumbnails import FEW_COLOURS, encode_thumbnail

TITLE = "Image retrieval"
SHOWN = 3  # queries with their nearest images
SIDE = 64  # pixels of an image


class RetrievalPrecision(NamedTuple):
    """Shares of the retrieved images, averaged over queries."""

    same_class: float  # they have the class of the query
    any_class: float  # they have any class of the query image


def section(predictions: Predictions) -> Section | None:
    """Precision of the nearest images of each network, and some queries with their results."""
    subset = predictions.subset
    if subset is None or not len(subset.queries):
        return None
    networks = [one for one in predictions.outputs if one.nearest is not None]
    if not networks:
        sentence = (
            "No network has label-wise embeddings or one feature vector before its classifier."
        )
        return Section("retrieval", TITLE, (sentence,))
    values = {
        one.name: retrieval_precision(one.nearest, predictions.positives, subset)
        for one in networks
        if one.nearest is not None
    }
    chance = chance_precision(predictions.positives, subset)
    return Section(
        "retrieval",
        TITLE,
        _sentences(predictions, subset, values, chance),
        (_table(networks, values, chance),),
        tuple(_images(predictions, subset, query) for query in shown_queries(subset.queries)),
    )


def retrieval_precision(nearest: Tensor, positives: Tensor, subset: Subset) -> RetrievalPrecision:
    """Precision of the nearest images: (Q, K), (N, C)."""
    position, label = subset.queries.unbind(1)
    retrieved = positives[nearest]  # (Q, K, C)
    query_classes = positives[subset.samples[position]]
    same_class = retrieved[torch.arange(len(label)), :, label]
    any_class = (retrieved & query_classes[:, None]).any(2)
    return RetrievalPrecision(float(same_class.double().mean()), float(any_class.double().mean()))


def chance_precision(positives: Tensor, subset: Subset) -> RetrievalPrecision:
    """Precision of random images: (N, C)."""
    position, label = subset.queries.unbind(1)
    others = max(1, len(positives) - 1)
    count = positives.sum(0)[label] - 1  # without the query image, which has the class
    query_classes = positives[subset.samples].float()
    any_class = ((query_classes @ positives.float().T) > 0).sum(1)[position] - 1
    return RetrievalPrecision(
        float(count.double().mean() / others),
        float(any_class.double().mean() / others),
    )


def shown_queries(queries: Tensor, count: int = SHOWN) -> list[int]:
    """Some queries of different classes and images, evenly spaced over the classes."""
    chosen: list[int] = []
    present = queries[:, 1].unique()
    for label in present[torch.from_numpy(evenly_spaced(len(present), count))].tolist():
        of_class = (queries[:, 1] == label).nonzero().flatten().tolist()
        taken = queries[chosen, 0].tolist()
        free = (q for q in of_class if int(queries[q, 0]) not in taken)
        chosen.append(next(free, of_class[0]))
    return chosen


def _table(
    networks: list[Outputs], values: dict[str, RetrievalPrecision], chance: RetrievalPrecision
) -> Table:
    count = 0 if networks[0].nearest is None else networks[0].nearest.shape[1]
    columns = ("network", "search by", "same class, %", "any class of the query image, %")
    rows: list[tuple[Cell, ...]] = [
        (
            one.name,
            "label-wise embedding" if one.labelwise else "features",
            *(100 * share for share in values[one.name]),
        )
        for one in networks
    ]
    rows.append(("chance", None, *(100 * share for share in chance)))
    return Table(columns, tuple(rows), f"Precision of the {count} nearest images", digits=1)


def _images(predictions: Predictions, subset: Subset, query: int) -> ImageGrid:
    """A query and its nearest images, one row per network."""
    position, label = subset.queries[query].tolist()
    sample = int(subset.samples[position])
    name, query_classes = predictions.classes[label], predictions.positives[sample]
    images: list[CaptionedImage] = []
    width = 0
    for one in predictions.main:
        if one.nearest is None:
            continue
        classes = join_names(
            [predictions.classes[c] for c in np.flatnonzero(query_classes.numpy())]
        )
        caption, alt = f"query, {one.name}", f"An image with {classes}"
        images.append(_image(predictions, sample, caption, alt))
        for rank, other in enumerate(one.nearest[query].tolist(), 1):
            text = _shared(predictions, query_classes, other, label)
            images.append(_image(predictions, other, text, f"{rank} of {one.name}: {text}"))
        width = 1 + one.nearest.shape[1]
    return ImageGrid(f"Nearest images for a query of class {name}", tuple(images), width)


def _image(predictions: Predictions, sample: int, caption: str, alt: str) -> CaptionedImage:
    png = encode_thumbnail(predictions.image(sample), SIDE, FEW_COLOURS)
    return CaptionedImage(png, caption, f"{alt}.")


def _shared(predictions: Predictions, query_classes: Tensor, other: int, label: int) -> str:
    """The classes that two images have in common, the class of the query first."""
    both = (query_classes & predictions.positives[other]).nonzero().flatten().tolist()
    names = [predictions.classes[c] for c in sorted(both, key=lambda c: (c != label, c))]
    missing = f", not {predictions.classes[label]}" if both and label not in both else ""
    return f"shares {join_names(names, 3)}{missing}"


def _sentences(
    predictions: Predictions,
    subset: Subset,
    values: dict[str, RetrievalPrecision],
    chance: RetrievalPrecision,
) -> tuple[str, ...]:
    notes = tuple(
        f"The {one.name} has no features to search by."
        for one in predictions.main
        if one.nearest is None
    )
    setting = (
        f"{len(subset.queries):,} queries, each one class of one image, against the other "
        f"{len(predictions.labels) - 1:,} images, by Euclidean distance."
    )
    student, teacher = predictions.student, predictions.teacher
    if student.name not in values:
        return (setting, *notes)
    same_class, any_class = (
        with_control(predictions, {name: percent(each[i]) for name, each in values.items()})
        for i in range(2)
    )
    text = f"Precision of {with_article(student)}: {same_class}"
    if teacher is not None and teacher.name in values:
        text += f"; teacher {percent(values[teacher.name].same_class)}"
    return (
        setting,
        f"{text}; chance {percent(chance.same_class)}.",
        f"Retrieved images that share any class with the query image: {any_class}; chance "
        f"{percent(chance.any_class)}.",
        *notes,
    )
