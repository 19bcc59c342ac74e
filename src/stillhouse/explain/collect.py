"""Asking networks, and keeping what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.errors import UserError
from stillhouse.explain.layer_cam import camera
from stillhouse.explain.subset import Closer, choose
from stillhouse.explain.predictions import LIMIT, Close, Hearing, Voice
from stillhouse.explain.neighbours import Search, distances, nearest
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.labelwise import EMBEDDINGS, Decoder
from stillhouse.models.stages import stages
from stillhouse.models.taps import Tapped
from stillhouse.tasks.base import Task
from stillhouse.tasks.images import logits, multi_hot
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.types import Trace

FEATURES = "penultimate"


def listen(
    networks: Mapping[str, nn.Module],
    task: Task[Any],
    batches: Callable[[], Iterable[Batch[Any]]],
    classes: Iterable[str],
    image: Callable[[int], Tensor],
    limit: int = LIMIT,
    closer: Closer | None = None,
) -> Hearing:
    """What all networks say about the first samples of a split that gives the same at each call.

    The order of the networks is that of the hearing: teacher, control, students. `image` gives the
    pixels of a sample by its key: -> (C, H, W) uint8. With `closer` some are looked at closely.
    """
    names = tuple(classes)
    labels, keys = known(batches(), limit)
    if isinstance(task, Multilabel) and len(labels):
        labels = multi_hot(labels, torch.zeros(len(labels), len(names)))
    close = None if closer is None or not len(labels) else choose(labels, keys, closer)
    voices = tuple(
        hear(n, network, task, batches(), limit, close) for n, network in networks.items()
    )
    places = keys.tolist()
    return Hearing(voices, labels, names, lambda index: image(places[index]), close=close)


def hear(
    name: str,
    network: nn.Module,
    task: Task[Any],
    batches: Iterable[Batch[Any]],
    limit: int = LIMIT,
    close: Close | None = None,
) -> Voice:
    """What one network says about at most `limit` samples, in eval mode; it stays as it was.

    Features are what its classifier is given, (N, D), or None where no single vector is.
    """
    said: list[Tensor] = []
    inner: list[Tensor] = []
    ears, closely = None, Closely()
    try:
        with undisturbed(network):
            for batch in first(batches, limit):
                inputs = task.inputs(batch)
                if ears is None:
                    ears = ear(network, *inputs)
                    closely = look(ears, task, close, *inputs)
                trace: Trace = ears(*inputs)
                said.append(logits(trace).float().cpu())
                inner += [trace.taps[FEATURES].float().cpu()] if FEATURES in trace.taps else []
                if closely.search is not None:
                    closely.search.add(trace.taps[EMBEDDINGS])
    finally:
        if ears is not None:
            ears.close()
    if not said:
        raise UserError(f"there is no sample for {name} to be asked about; give a split that has")
    features = torch.cat(inner) if inner else None
    found = None if close is None else neighbours(close, closely.search, features)
    labelwise = closely.search is not None
    return Voice(name, torch.cat(said), features, found, labelwise, closely.maps)


def ear(network: nn.Module, *inputs: Tensor) -> Tapped:
    """The network with taps at what its classifier is given and at label-wise embeddings.

    Either is left out where there is no such place, and both where there are several.
    """
    example = tuple(x[:2] for x in inputs)
    vector = stages(network, *example).get(FEATURES)
    heads = [path for path, part in network.named_modules() if isinstance(part, Decoder)]
    taps = {} if vector is None else {FEATURES: vector}
    return Tapped(network, taps | ({EMBEDDINGS: heads[0]} if len(heads) == 1 else {}), example)


class Closely(NamedTuple):
    """What came of looking closely at some samples."""

    search: Search | None = None  # that of a network with label-wise embeddings
    maps: Tensor | None = None  # (M, h, w) from 0


def look(ears: Tapped, task: Task[Any], close: Close | None, *example: Tensor) -> Closely:
    """Ask a network about the close samples: embeddings of queries, and where it sees classes."""
    if close is None:
        return Closely()
    asked: list[Tensor] = []
    maps: list[Tensor | None] = []
    start = 0
    with camera(ears.model, *(x[:2] for x in example)) as shoot:
        for batch in close.batches():
            stop = start + len(batch.target)
            with torch.no_grad():
                trace: Trace = ears(*task.inputs(batch))
            shot = shoot(logits(trace), close.labels[start:stop])
            maps.append(None if shot is None else shot.float().cpu())
            place, label = within(close.queries, start, stop)
            if EMBEDDINGS in trace.taps and len(close.queries):
                asked.append(trace.taps[EMBEDDINGS].detach().float()[place, label])
            start = stop
    known = [shot for shot in maps if shot is not None]
    return Closely(
        Search(torch.cat(asked), close.queries[:, 1]) if asked else None,
        torch.cat(known) if known and len(known) == len(maps) else None,
    )


def within(queries: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Places from `start` on and classes of the queries of one batch: (Q, 2) -> (B,), (B,)."""
    place, label = queries[(queries[:, 0] >= start) & (queries[:, 0] < stop)].unbind(1)
    return place - start, label


def neighbours(close: Close, search: Search | None, features: Tensor | None) -> Tensor | None:
    """The samples nearest to each query, by label-wise embeddings or by features: -> (Q, K)."""
    place = close.queries[:, 0]
    itself = close.samples[place]
    if search is not None:
        return search.found(itself)
    if features is None or not len(place):
        return None
    return nearest(distances(features[close.samples], features)[place], itself)


def known(batches: Iterable[Batch[Any]], limit: int = LIMIT) -> tuple[Tensor, Tensor]:
    """Labels and keys of the first samples: -> (N,) or (N, C), (N,)."""
    pairs = [(batch.target.cpu(), batch.keys.cpu()) for batch in first(batches, limit)]
    if not pairs:
        empty = torch.zeros(0, dtype=torch.int64)
        return empty, empty
    labels, keys = zip(*pairs, strict=True)
    return torch.cat(labels), torch.cat(keys)


def first(batches: Iterable[Batch[Any]], limit: int) -> Iterable[Batch[Any]]:
    """Batches until `limit` samples are there, the last one cut."""
    left = limit
    for batch in batches:
        yield batch.rows(slice(left))
        left -= len(batch.target)
        if left <= 0:
            return
