"""A place on the disk for data that can be made again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from stillhouse.data.source import fingerprint_of_content
from stillhouse.errors import UserError
from stillhouse.files import replacing

Tensors = dict[str, Tensor]


def cache_folder() -> Path:
    """`STILLHOUSE_CACHE`, else `stillhouse` in the user's cache folder."""
    if own := os.environ.get("STILLHOUSE_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser() / "stillhouse"


def cached(name: str, fingerprint: str, make: Callable[[], Tensors]) -> Tensors:
    """What `make` gives, read from the disk where an intact copy of it lies.

    A file that is damaged, or that another recipe wrote, is made again and replaced. A folder that
    cannot be written costs time at the next call, and nothing else.
    """
    path = cache_folder() / f"{name.replace('/', '-')}-{fingerprint[:16]}.safetensors"
    found = _read(path, fingerprint)
    if found is not None:
        return found
    made = make()
    with suppress(OSError, UserError):
        _write(path, made, fingerprint)
    return made


def _read(path: Path, fingerprint: str) -> Tensors | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            # Cloned, because a mapped file that someone truncates later would end the process.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None
    expected = {"fingerprint": fingerprint, "content": _digest(tensors)}
    return tensors if expected == {key: metadata.get(key) for key in expected} else None


def _write(path: Path, tensors: Tensors, fingerprint: str) -> None:
    from safetensors.torch import save

    whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
    data = save(whole, {"fingerprint": fingerprint, "content": _digest(whole)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data)


def _digest(tensors: Tensors) -> str:
    names = sorted(tensors)
    return fingerprint_of_content([tensors[name] for name in names], names)
