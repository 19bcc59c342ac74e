"""The state of a run on the disk: tensors and plain values, nothing that has to be trusted."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.files import replacing

FORMAT = "stillhouse_checkpoint"  # the key by which our files are known, and its version
VERSION = 1

# Exact types: a subclass would be pickled by its import path, which loading then refuses.
_LEAVES = (Tensor, nn.Parameter, bool, int, float, str, bytes, type(None))
_MAPPINGS = (dict, OrderedDict)
_SEQUENCES = (list, tuple)


def save(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all; what was there before stays until it is replaced."""
    path = Path(path)
    if FORMAT in state:
        raise ValueError(f"the key {FORMAT!r} belongs to the checkpoint itself")
    whole = {FORMAT: VERSION, **state}
    _check(whole, "")
    with replacing(path, "checkpoint") as file:
        torch.save(whole, file)


def _check(value: object, place: str) -> None:
    if type(value) in _MAPPINGS:
        for key, inner in value.items():  # type: ignore[attr-defined]
            if type(key) not in (str, int):
                raise TypeError(f"a checkpoint cannot hold the key {key!r} at {place or 'its top'}")
            _check(inner, f"{place}.{key}" if place else str(key))
    elif type(value) in _SEQUENCES:
        for index, inner in enumerate(value):  # type: ignore[arg-type]
            _check(inner, f"{place}[{index}]")
    elif type(value) not in _LEAVES:
        raise TypeError(f"a checkpoint cannot hold the {type(value).__name__} at {place}")


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there is no checkpoint at {path}; check the path, or run without --resume"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise UserError(f"could not read {path}: {error.strerror}; make it readable") from error
    # Bytes of another origin fail in as many ways as there are bytes.
    except Exception as error:
        raise UserError(
            f"{path} is damaged or not a checkpoint; put back a copy of it, or run anew in "
            "another folder"
        ) from error
    if not isinstance(state, dict) or FORMAT not in state:
        raise UserError(f"{path} is not a checkpoint of a run; give the state.pt of a run's folder")
    if state.pop(FORMAT) != VERSION:
        raise UserError(
            f"{path} was written by another version of stillhouse; resume it with that version"
        )
    return state


def random_state() -> dict[str, Any]:
    """Where the random numbers of this process stand: Python, NumPy, torch, and its own GPU."""
    version, words, spare = random.getstate()
    name, keys, position, has_spare, normal = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), spare],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_spare),
            float(normal),
        ],
        "torch": torch.get_rng_state(),
    }
    # This rank's device alone: to ask the others would open a context on each of them. A device
    # that was never used has drawn no numbers.
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Go on from where `random_state` stood."""
    version, words, spare = state["python"]
    random.setstate((version, tuple(words), spare))
    name, keys, position, has_spare, normal = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_spare, normal))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
