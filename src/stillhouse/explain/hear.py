"""Asking networks, and keeping what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from stillhouse.batches import Labelled
from stillhouse.errors import UserError
from stillhouse.explain.hearing import LIMIT, Hearing, Voice
from stillhouse.models.dry import undisturbed
from stillhouse.models.stages import stages
from stillhouse.models.taps import Tapped
from stillhouse.tasks.classification import Classification, logits
from stillhouse.types import Trace

FEATURES = "penultimate"


def listen(
    networks: Mapping[str, nn.Module],
    task: Classification,
    batches: Callable[[], Iterable[Labelled]],
    classes: Iterable[str],
    image: Callable[[int], Tensor],
    limit: int = LIMIT,
) -> Hearing:
    """What all networks say about the first samples of a split that gives the same at each call.

    The order of the networks is that of the hearing: teacher, control, students. `image` gives the
    pixels of a sample by its key: -> (C, H, W) uint8.
    """
    labels, keys = known(batches(), limit)
    voices = tuple(hear(n, network, task, batches(), limit) for n, network in networks.items())
    places = keys.tolist()
    return Hearing(voices, labels, tuple(classes), lambda index: image(places[index]))


def hear(
    name: str,
    network: nn.Module,
    task: Classification,
    batches: Iterable[Labelled],
    limit: int = LIMIT,
) -> Voice:
    """What one network says about at most `limit` samples, in eval mode; it stays as it was.

    Features are what its classifier is given, (N, D), or None where no single vector is.
    """
    said: list[Tensor] = []
    inner: list[Tensor] = []
    ears = None
    try:
        with undisturbed(network):
            for batch in first(batches, limit):
                inputs = task.inputs(batch)
                ears = ears or ear(network, *inputs)
                trace: Trace = ears(*inputs)
                said.append(logits(trace).float().cpu())
                inner += [trace.taps[FEATURES].float().cpu()] if FEATURES in trace.taps else []
    finally:
        if ears is not None:
            ears.close()
    if not said:
        raise UserError(f"there is no sample for {name} to be asked about; give a split that has")
    return Voice(name, torch.cat(said), torch.cat(inner) if inner else None)


def ear(network: nn.Module, *inputs: Tensor) -> Tapped:
    """The network with a tap at what its classifier is given, where there is such a place."""
    example = tuple(x[:2] for x in inputs)
    found = stages(network, *example).get(FEATURES)
    return Tapped(network, {} if found is None else {FEATURES: found}, example)


def known(batches: Iterable[Labelled], limit: int = LIMIT) -> tuple[Tensor, Tensor]:
    """Labels and keys of the first samples: -> (N,), (N,)."""
    pairs = [(batch.label.cpu(), batch.key.cpu()) for batch in first(batches, limit)]
    if not pairs:
        empty = torch.zeros(0, dtype=torch.int64)
        return empty, empty
    labels, keys = zip(*pairs, strict=True)
    return torch.cat(labels), torch.cat(keys)


def first(batches: Iterable[Labelled], limit: int) -> Iterable[Labelled]:
    """Batches until `limit` samples are there, the last one cut."""
    left = limit
    for batch in batches:
        yield batch.rows(slice(left))
        left -= len(batch.label)
        if left <= 0:
            return
