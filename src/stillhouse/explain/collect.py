"""Collecting the outputs of networks for one split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.errors import UserError
from stillhouse.explain.guard import error_text, failure_sentence, log_traceback
from stillhouse.explain.layer_cam import layer_cam
from stillhouse.explain.neighbours import LabelwiseSearch, euclidean_distances, nearest_images
from stillhouse.explain.predictions import MAX_IMAGES, Outputs, Predictions
from stillhouse.explain.subset import Subset, SubsetLoader, choose_subset
from stillhouse.models.aliases import find_aliases
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.labelwise import EMBEDDINGS, find_labelwise_head
from stillhouse.models.taps import Tapped
from stillhouse.tasks.base import Task
from stillhouse.types import Trace

FEATURES = "penultimate"
T = TypeVar("T")


def collect_predictions(
    networks: Mapping[str, nn.Module],
    task: Task[Any],
    batches: Callable[[], Iterable[Batch[Any]]],
    classes: Iterable[str],
    image: Callable[[int], Tensor],
    limit: int = MAX_IMAGES,
    loader: SubsetLoader | None = None,
) -> Predictions:
    """The outputs of all networks for the first images of a split, the same at each call.

    The order of the networks is kept: teacher, control, students. `image` gives the pixels of a
    sample by its key: -> (C, H, W) uint8. With `loader`, activation maps and neighbours of a subset
    are collected, too. A network that fails is named in `missing`; the last one raises its error.
    """
    labels, keys = collect_labels(task, batches(), limit)
    subset = None if loader is None or not len(labels) else choose_subset(labels, keys, loader)
    outputs, missing = collect_each(
        networks,
        lambda name, network: collect_outputs(name, network, task, batches(), limit, subset),
    )
    order = keys.tolist()
    return Predictions(
        outputs,
        tuple(classes),
        lambda index: image(order[index]),
        labels,
        subset,
        missing=missing,
    )


def collect_each(
    networks: Mapping[str, nn.Module], collect: Callable[[str, nn.Module], T]
) -> tuple[tuple[T, ...], dict[str, str]]:
    """What is collected of each network, and why there is nothing of others, by name.

    The error of the last network, which the page is about, is raised.
    """
    outputs: list[T] = []
    missing: dict[str, str] = {}
    for number, (name, network) in enumerate(networks.items(), 1):
        try:
            outputs.append(collect(name, network))
        except Exception as error:
            if number == len(networks):
                raise
            missing[name] = failure_sentence(f"The outputs of {name}", error, "collected")
    return tuple(outputs), missing


def collect_outputs(
    name: str,
    network: nn.Module,
    task: Task[Any],
    batches: Iterable[Batch[Any]],
    limit: int = MAX_IMAGES,
    subset: Subset | None = None,
) -> Outputs:
    """The outputs of one network for at most `limit` images, in eval mode; it is not changed.

    Features are the input of the classifier, (N, D), or None where that is not one vector.
    """
    logits: list[Tensor] = []
    features: list[Tensor] = []
    maps, maps_error, search = None, "", None
    tapped = None
    try:
        with undisturbed(network):
            for batch in first_batches(batches, limit):
                if tapped is None:
                    example = task.inputs(batch.rows(slice(2)))
                    tapped = tap_network(network, *example)
                    maps, maps_error = collect_maps(network, task, subset, *example)
                    search = labelwise_search(tapped, task, subset)
                trace: Trace = tapped(*task.inputs(batch))
                logits.append(task.collect(trace).float().cpu())
                if FEATURES in trace.taps:
                    features.append(trace.taps[FEATURES].float().cpu())
                if search is not None:
                    search.add(trace.taps[EMBEDDINGS])
    finally:
        if tapped is not None:
            tapped.close()
    if not logits:
        raise UserError(f"the split has no images for {name}; choose a split with images")
    vectors = torch.cat(features) if features else None
    nearest = None if subset is None else nearest_to_queries(subset, search, vectors)
    labelwise = search is not None
    return Outputs(name, torch.cat(logits), vectors, nearest, labelwise, maps, maps_error)


def tap_network(network: nn.Module, *example: Any) -> Tapped:
    """The network with taps at the input of its classifier and at its label-wise embeddings.

    A place that it does not have, or has several times, is left out; both are left out if they
    cannot be tapped.
    """
    try:
        taps = find_taps(network, *example)
        tapped = Tapped(network, taps, example)
        try:
            tapped(*example)
        except Exception:
            tapped.close()
            raise
    except Exception as error:
        log_traceback("The features", error)
        return Tapped(network)
    return tapped


def find_taps(network: nn.Module, *example: Any) -> dict[str, str]:
    """The paths of the features and of the label-wise embeddings, as far as there is one place."""
    vector = find_aliases(network, *example).get(FEATURES)
    head = find_labelwise_head(network)
    taps = {} if vector is None else {FEATURES: vector}
    return taps | ({} if head is None else {EMBEDDINGS: head.embeddings})


def collect_maps(
    network: nn.Module, task: Task[Any], subset: Subset | None, *example: Any
) -> tuple[Tensor | None, str]:
    """The class activation map of each image of the subset, (M, h, w), or why there is none."""
    if subset is None:
        return None, ""
    maps: list[Tensor] = []
    start = 0
    try:
        with layer_cam(network, *example) as maps_of:
            for batch in subset.batches():
                labels = subset.labels[start : start + len(batch)]
                with torch.no_grad():
                    output = network(*task.inputs(batch))
                with torch.enable_grad():
                    scores = task.select(output, labels.to(batch.keys.device))
                batch_maps = maps_of(scores)
                if batch_maps is None:
                    return None, ""
                maps.append(batch_maps.float().cpu())
                start += len(batch)
    except Exception as error:
        log_traceback("The class activation maps", error)
        return None, error_text(error)
    return torch.cat(maps) if maps else None, ""


def labelwise_search(
    tapped: Tapped, task: Task[Any], subset: Subset | None
) -> LabelwiseSearch | None:
    """A search by the label-wise embeddings of the queries; None without such embeddings."""
    if subset is None or EMBEDDINGS not in tapped.paths or not len(subset.queries):
        return None
    embeddings: list[Tensor] = []
    start = 0
    for batch in subset.batches():
        trace: Trace = tapped(*task.inputs(batch))
        position, label = queries_between(subset.queries, start, start + len(batch))
        embeddings.append(trace.taps[EMBEDDINGS].detach().float()[position, label])
        start += len(batch)
    return LabelwiseSearch(torch.cat(embeddings), subset.queries[:, 1])


def queries_between(queries: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Positions in a batch, and classes, of the queries of that batch: (Q, 2) -> (B,), (B,)."""
    position, label = queries[(queries[:, 0] >= start) & (queries[:, 0] < stop)].unbind(1)
    return position - start, label


def nearest_to_queries(
    subset: Subset, search: LabelwiseSearch | None, features: Tensor | None
) -> Tensor | None:
    """The nearest images of each query, by label-wise embeddings or by features: -> (Q, K)."""
    position = subset.queries[:, 0]
    query_images = subset.samples[position]
    if search is not None:
        return search.nearest(query_images)
    if features is None or not len(position):
        return None
    return nearest_images(
        euclidean_distances(features[subset.samples], features)[position], query_images
    )


def collect_labels(
    task: Task[Any], batches: Iterable[Batch[Any]], limit: int = MAX_IMAGES
) -> tuple[Tensor, Tensor]:
    """Labels and keys of the first images: -> (N,) or (N, C), (N,)."""
    pairs = [(task.collect_target(b), b.keys.cpu()) for b in first_batches(batches, limit)]
    if not pairs:
        empty = torch.zeros(0, dtype=torch.int64)
        return empty, empty
    labels, keys = zip(*pairs, strict=True)
    return torch.cat(labels), torch.cat(keys)


def first_batches(batches: Iterable[Batch[Any]], limit: int) -> Iterable[Batch[Any]]:
    """Batches up to `limit` images, the last batch cut."""
    left = limit
    for batch in batches:
        yield batch.rows(slice(left))
        left -= len(batch)
        if left <= 0:
            return
