"""Checkpoints of runs: tensors and plain values, loaded without unpickling objects."""

from __future__ import annotations

import contextlib
import os
import random
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.files import atomic_write
from stillhouse.models.torch_file import load_torch_file

PREVIOUS = ".previous"  # in the name of the checkpoint before: state.previous.pt
FORMAT = "stillhouse_checkpoint"  # the key that marks our files and has the version
VERSION = 1

# Exact types: a subclass is pickled by its import path, which loading refuses.
_LEAVES = (Tensor, nn.Parameter, bool, int, float, str, bytes, type(None))
_MAPPINGS = (dict, OrderedDict)
_SEQUENCES = (list, tuple)


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; an existing one is kept beside it, see `previous_path`."""
    path = Path(path)
    if FORMAT in state:
        raise ValueError(f"the key {FORMAT!r} is reserved")
    content = {FORMAT: VERSION, **state}
    _check(content, "")
    with atomic_write(path, "checkpoint") as file:
        torch.save(content, file)
        keep_previous(path)  # once the new one is written, so that a full disk loses none


def previous_path(path: Path) -> Path:
    """Where the checkpoint before is kept: `state.previous.pt` for `state.pt`."""
    return path.with_name(f"{path.stem}{PREVIOUS}{path.suffix}")


def keep_previous(path: Path) -> None:
    """Give an existing checkpoint a second name, which it keeps when it is replaced."""
    previous = previous_path(path)
    with contextlib.suppress(OSError):  # not every file system has hard links
        if path.is_file():
            previous.unlink(missing_ok=True)
            os.link(path, previous)


def _check(value: object, place: str) -> None:
    if type(value) in _MAPPINGS:
        for key, inner in value.items():  # type: ignore[attr-defined]
            if type(key) not in (str, int):
                raise TypeError(
                    f"a checkpoint cannot contain the key {key!r} at {place or 'the top level'}"
                )
            _check(inner, f"{place}.{key}" if place else str(key))
    elif type(value) in _SEQUENCES:
        for index, inner in enumerate(value):  # type: ignore[arg-type]
            _check(inner, f"{place}[{index}]")
    elif type(value) not in _LEAVES:
        raise TypeError(f"a checkpoint cannot contain the {type(value).__name__} at {place}")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"checkpoint {path} does not exist; check the path, or run without --resume"
        )
    try:
        check_content(path)
        state = load_torch_file(path)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    # Files of another format raise nearly anything.
    except Exception as error:
        raise UserError(f"{path} is damaged or not a checkpoint; {_remedy(path)}") from error
    if not isinstance(state, dict) or FORMAT not in state:
        raise UserError(f"{path} is not the checkpoint of a run; give the state.pt of a run folder")
    if state.pop(FORMAT) != VERSION:
        raise UserError(
            f"{path} was written by another version of stillhouse; resume it with that version"
        )
    return state


def check_content(path: Path) -> None:
    """Raise an error for changed bytes: torch writes a checksum of each entry, but reads none."""
    with zipfile.ZipFile(path) as archive:
        if entry := archive.testzip():
            raise ValueError(f"{entry} is damaged")


def _remedy(path: Path) -> str:
    previous = previous_path(path)
    if previous.is_file():
        return f"resume from the checkpoint before: rename {previous.name} beside it to {path.name}"
    return "restore a copy of it, or start again in another folder"


def random_state() -> dict[str, Any]:
    """The random state of this process: Python, NumPy, torch, and its GPU."""
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
    # Only the device of this rank: reading the state of others would create contexts on them. A
    # device that was never used has drawn no numbers.
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Restore what `random_state` returned."""
    version, words, spare = state["python"]
    random.setstate((version, tuple(words), spare))
    name, keys, position, has_spare, normal = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_spare, normal))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
