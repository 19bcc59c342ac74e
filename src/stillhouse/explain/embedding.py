"""Penultimate features in two dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.explain.compared import Layout
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.row_statistics import Rows, evenly_spaced
from stillhouse.explain.section import ScatterPlot, Section, Series

TITLE = "Penultimate features"
IMAGES, CLASSES = 1000, 10  # at most
PERPLEXITY, ITERATIONS, SEED = 30, 500, 0
DIMENSIONS = 50  # of the features that t-SNE is given
TSNE_MINIMUM = 5  # images
NAMES = {"tsne": "t-SNE", "pca": "PCA"}


def section(predictions: Predictions) -> Section | None:
    """Features of teacher, control and student in two dimensions; None if no network has any."""
    index = choose_images(predictions.labels)
    layout = predictions.layout if len(index) >= TSNE_MINIMUM else "pca"
    labels = predictions.labels.numpy()[index]
    present = sorted(set(labels.tolist()))
    series, without = [], []
    for one in predictions.main:
        features = _features(one, index)
        if features is None:
            without.append(one.name)
            continue
        x, y = project(features, layout).T
        group = tuple(present.index(label) for label in labels.tolist())
        series.append(Series(one.name, tuple(map(float, x)), tuple(map(float, y)), group))
    if not series:
        return None
    names = tuple(predictions.classes[label] for label in present)
    plot = ScatterPlot(f"{NAMES[layout]} of penultimate features", tuple(series), names)
    sentences = _sentences(predictions, len(index), len(present), layout, without)
    return Section("embedding", TITLE, sentences, (), (plot,))


def choose_images(labels: Tensor) -> NDArray[np.int64]:
    """At most 1,000 images of at most 10 classes, both evenly spaced: (N,) -> (M,) indices."""
    true = labels.numpy()
    present = np.unique(true)
    kept = present[evenly_spaced(len(present), CLASSES)]
    members = np.flatnonzero(np.isin(true, kept))
    # Sorted by class, an even spacing is stratified.
    ordered = members[np.argsort(true[members], kind="stable")]
    index: NDArray[np.int64] = np.sort(ordered[evenly_spaced(len(ordered), IMAGES)])
    return index


def project(features: Rows, layout: Layout) -> Rows:
    """Two dimensions by t-SNE (van der Maaten and Hinton, 2008) or PCA: (M, D) -> (M, 2)."""
    if layout == "pca" or len(features) < TSNE_MINIMUM:
        return principal_components(features, 2)
    from sklearn.manifold import TSNE

    reduced = principal_components(features, max(2, min(DIMENSIONS, features.shape[1])))
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED, max_iter=ITERATIONS)
    points: Rows = np.asarray(model.fit_transform(reduced), float)
    return points


def principal_components(features: Rows, size: int) -> Rows:
    """The first principal components, padded with zeros: (M, D) -> (M, size)."""
    centred = features - features.mean(0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is arbitrary: its largest entry is made positive.
    largest = right[np.arange(len(right)), np.abs(right).argmax(1)]
    components = (left * values * np.where(largest < 0, -1, 1))[:, :size]
    return np.pad(components, ((0, 0), (0, size - components.shape[1])))


def _features(outputs: Outputs, index: NDArray[np.int64]) -> Rows | None:
    if outputs.features is None:
        return None
    features: Rows = outputs.features.double().numpy()[index]
    # A dead layer gives every image the same vector, which cannot be projected.
    usable = np.isfinite(features).all() and bool(np.ptp(features, axis=0).any())
    return features if usable else None


def _sentences(
    predictions: Predictions, images: int, classes: int, layout: Layout, without: list[str]
) -> tuple[str, ...]:
    method = NAMES[layout]
    if layout == "tsne":
        method += f" (perplexity {min(PERPLEXITY, (images - 1) / 3):.3g}, seed {SEED})"
    total = len(predictions.labels.unique())
    some = f"all {classes}" if classes == total else f"{classes} of {total}"
    sentences = [f"{images:,} images of {some} classes, projected by {method}."]
    sentences += [f"The {name} has no usable features before its classifier." for name in without]
    return tuple(sentences)
