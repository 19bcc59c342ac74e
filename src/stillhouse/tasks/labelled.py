"""The part of a batch whose images have labels, for label terms and scores."""

from __future__ import annotations

from typing import Any

import torch

from stillhouse.batches import Batch, Objects
from stillhouse.types import Trace


def labelled_part(trace: Trace, batch: Batch[Any]) -> tuple[Trace, Batch[Any]]:
    """The output and the images with labels, without taps; both as they are if all images have.

    For batches of objects, and outputs that have `rows`.
    """
    target = batch.target
    if target is None:
        labelled = torch.zeros(0, dtype=torch.int64)
    elif isinstance(target, Objects) and target.unlabelled is not None:
        labelled = (~target.unlabelled).nonzero()[:, 0]
    else:
        return trace, batch
    labelled = labelled.to(batch.images.device)
    return Trace(trace.out.rows(labelled)), batch.rows(labelled)
