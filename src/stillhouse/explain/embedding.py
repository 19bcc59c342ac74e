"""What the classifier is given, in a plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stillhouse.explain.predictions import Hearing, Layout, Voice
from stillhouse.explain.row_statistics import Rows, evenly
from stillhouse.explain.section import Cloud, Section, Series

SAMPLES, CLASSES = 1000, 10
PERPLEXITY, ITERATIONS, SEED = 30, 500, 0
DIMENSIONS = 50  # to which features are reduced before their neighbours are sought


def section(hearing: Hearing) -> Section | None:
    """Features of teacher, control and student in a plane; None where nobody has any."""
    how = hearing.layout
    index = chosen(hearing.labels)
    labels = hearing.labels.numpy()[index]
    present = sorted(set(labels.tolist()))
    series, silent = [], []
    for voice in hearing.shown:
        features = _features(voice, index)
        if features is None:
            silent.append(voice.name)
            continue
        x, y = plane(features, how).T
        group = tuple(present.index(label) for label in labels.tolist())
        series.append(Series(voice.name, tuple(map(float, x)), tuple(map(float, y)), group))
    if not series:
        return None
    names = tuple(hearing.classes[label] for label in present)
    cloud = Cloud("Features before the classifier", tuple(series), names)
    said = _said(hearing, len(index), len(present), how, silent)
    return Section("embedding", "Features", said, (), (cloud,))


def chosen(labels: Tensor) -> NDArray[np.int64]:
    """At most 1,000 samples of at most 10 classes, both evenly: (N,) -> (M,) indices."""
    true = labels.numpy()
    present = np.unique(true)
    kept = present[evenly(len(present), CLASSES)]
    members = np.flatnonzero(np.isin(true, kept))
    # Sorted by class, evenly spaced is stratified.
    ordered = members[np.argsort(true[members], kind="stable")]
    found: NDArray[np.int64] = np.sort(ordered[evenly(len(ordered), SAMPLES)])
    return found


def plane(features: Rows, how: Layout) -> Rows:
    """A point of each row, by t-SNE (van der Maaten and Hinton, 2008) or PCA: (M, D) -> (M, 2)."""
    if how == "pca" or len(features) < 5:
        return principal(features, 2)
    from sklearn.manifold import TSNE

    reduced = principal(features, max(2, min(DIMENSIONS, features.shape[1])))
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=SEED, max_iter=ITERATIONS)
    points: Rows = np.asarray(model.fit_transform(reduced), float)
    return points


def principal(features: Rows, size: int) -> Rows:
    """The first principal components, zeros where there are fewer: (M, D) -> (M, size)."""
    centred = features - features.mean(0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    # A component may point either way; its largest part is made positive.
    largest = right[np.arange(len(right)), np.abs(right).argmax(1)]
    found = (left * values * np.where(largest < 0, -1, 1))[:, :size]
    return np.pad(found, ((0, 0), (0, size - found.shape[1])))


def _features(voice: Voice, index: NDArray[np.int64]) -> Rows | None:
    if voice.features is None:
        return None
    features: Rows = voice.features.double().numpy()[index]
    # A dead layer gives all samples one vector, which has no plane.
    usable = np.isfinite(features).all() and bool(np.ptp(features, axis=0).any())
    return features if usable else None


def _said(
    hearing: Hearing, samples: int, classes: int, how: Layout, silent: list[str]
) -> tuple[str, ...]:
    way = "principal components"
    if how == "tsne" and samples >= 5:
        way = f"t-SNE (perplexity {min(PERPLEXITY, (samples - 1) / 3):.3g}, seed {SEED})"
    whole = len(hearing.labels.unique())
    some = f"all {classes}" if classes == whole else f"{classes} of {whole}"
    said = [f"Each point is one of {samples:,} images of {some} classes, laid out by {way}."]
    said += [f"No features that differ were heard of the {name}." for name in silent]
    return tuple(said)
