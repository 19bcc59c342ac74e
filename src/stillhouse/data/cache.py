"""The disk cache of data that can be recomputed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from stillhouse.data.source import fingerprint_of_content
from stillhouse.errors import UserError
from stillhouse.files import atomic_write

Tensors = dict[str, Tensor]


def cache_folder() -> Path:
    """`STILLHOUSE_CACHE`, else `stillhouse` in the user's cache folder."""
    if folder := os.environ.get("STILLHOUSE_CACHE"):
        return Path(folder).expanduser()
    parent = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(parent).expanduser() / "stillhouse"


def cached(name: str, fingerprint: str, make: Callable[[], Tensors]) -> Tensors:
    """The tensors that `make` returns, read from the disk if an intact copy is there.

    A file that is damaged, or has another fingerprint, is replaced. A folder that cannot be
    written is not an error: the tensors are made again at the next call.
    """
    path = cache_folder() / f"{name.replace('/', '-')}-{fingerprint[:16]}.safetensors"
    tensors = _read(path, fingerprint)
    if tensors is not None:
        return tensors
    tensors = make()
    with suppress(OSError, UserError):
        _write(path, tensors, fingerprint)
    return tensors


def _read(path: Path, fingerprint: str) -> Tensors | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            # Cloned, because truncating a mapped file later would crash the process.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None
    expected = {"fingerprint": fingerprint, "content": _digest(tensors)}
    return tensors if expected == {key: metadata.get(key) for key in expected} else None


def _write(path: Path, tensors: Tensors, fingerprint: str) -> None:
    from safetensors.torch import save

    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    data = save(tensors, {"fingerprint": fingerprint, "content": _digest(tensors)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)


def _digest(tensors: Tensors) -> str:
    names = sorted(tensors)
    return fingerprint_of_content([tensors[name] for name in names], names)
