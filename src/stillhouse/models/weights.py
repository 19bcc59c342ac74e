"""Weights in files: read whole or not at all, never running code, written whole or not at all."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from stillhouse.errors import UserError, did_you_mean
from stillhouse.files import atomic_write, write_error

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model", "student")  # keys that hold the weights
PREFIXES = ("module.", "model.", "_orig_mod.")  # what DDP, trainers and torch.compile put before

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was found in a file, all of which is now in the network."""

    path: Path
    tensors: int
    wrapper: str = ""  # the key, or keys joined by a dot, under which the weights lay
    prefix: str = ""  # what stood before every name


def load(model: nn.Module, path: str | Path) -> LoadReport:
    """Put the weights of a file into a network: every tensor of both, or an error and no change."""
    path, expected = Path(path), model.state_dict()
    state, wrapper, prefix = _found(path, expected)
    whole = _counted_batches(expected) | state
    _check_names(path, whole, expected)
    _check_shapes(path, whole, expected)
    model.load_state_dict(whole, strict=True)
    return LoadReport(path, len(state), wrapper, prefix)


def begin(model: nn.Module, path: str | Path) -> LoadReport:
    """Put the weights of a file into a network that has another classifier, or none.

    Tensors of the file that the network has no place for are left aside, and a classifier for
    another number of classes stays as it was drawn; all else must be there.
    """
    path, expected = Path(path), model.state_dict()
    state, wrapper, prefix = _found(path, expected)
    known = _counted_batches(expected) | state
    whole = {name: known[name] for name in expected if name in known}
    _check_names(path, whole, expected)
    wrong = [name for name in expected if whole[name].shape != expected[name].shape]
    if wrong and not _is_classifier(wrong, whole, expected):
        _check_shapes(path, whole, expected)
    kept = {name: tensor for name, tensor in whole.items() if name not in wrong}
    model.load_state_dict(expected | kept, strict=True)
    return LoadReport(path, len(kept), wrapper, prefix)


def save(model: nn.Module, path: str | Path) -> None:
    """Write weights as safetensors; what lay there before stays until all is written."""
    path = Path(path)
    # Tied weights are written once for each name, so that plain `load_state_dict` takes the file.
    state = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in model.state_dict().items()
    }
    content = safetensors.torch.save(state, metadata={"format": "pt"})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with atomic_write(path, "file of weights") as file:
        file.write(content)


def state_hash(model: nn.Module) -> str:
    """A SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers, in order."""
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------- the file


def _read(path: Path) -> Any:
    _check_there(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(_damaged(path, "safetensors file", str(error))) from error
    try:
        with warnings.catch_warnings():  # about pickles of other makers, which are refused below
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise UserError(
                f"{path}: the file holds code or objects ({code[1]}), which are never loaded; "
                "open it where you trust it and save only `model.state_dict()`"
            ) from error
        raise UserError(_damaged(path, "file of torch.save")) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(_damaged(path, "file of torch.save")) from error


def _check_there(path: Path) -> None:
    if path.is_dir():
        found = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
        inside = f"name a file in it: {', '.join(found[:5])}" if found else "it holds no weights"
        raise UserError(f"{path} is a folder, not a file of weights; {inside}")
    if not path.exists():
        folder = path.parent
        if not folder.is_dir():
            raise UserError(f"{path}: there is no folder {str(folder)!r} to read weights from")
        siblings = sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)
        raise UserError(f"{path}: there is no such file{did_you_mean(path.name, siblings)}")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: weights end in {', '.join(SUFFIXES)}, not in {path.suffix!r}")


def _damaged(path: Path, kind: str, detail: str = "") -> str:
    said = f" ({detail})" if detail else ""
    size = path.stat().st_size
    return f"{path}: not a readable {kind}{said}; its {size} bytes may be cut off: fetch it again"


# ------------------------------------------------------------------------------------ its contents


def _found(path: Path, expected: State) -> tuple[State, str, str]:
    """The tensors of a file under the network's names, and what they lay under."""
    state, wrapper = _unwrapped(path, _read(path))
    state, prefix = _stripped(state, expected)
    return state, wrapper, prefix


def _counted_batches(expected: State) -> State:
    """Networks saved before BatchNorm counted its batches are whole without the count."""
    return {n: t for n, t in expected.items() if n.endswith("num_batches_tracked")}


def _unwrapped(path: Path, content: Any) -> tuple[State, str]:
    """The table of tensors in a checkpoint, and the keys that led there."""
    keys: list[str] = []
    while isinstance(content, Mapping):
        inner = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        keys.append(inner[0])
        content = content[inner[0]]
    if isinstance(content, Mapping) and content:
        strangers = [name for name, value in content.items() if not isinstance(value, Tensor)]
        if not strangers:
            return {str(name): value for name, value in content.items()}, ".".join(keys)
        found = f"{str(strangers[0])!r} is a {type(content[strangers[0]]).__name__}"
    else:
        found = "it is empty" if content == {} else f"it is a {type(content).__name__}"
    raise UserError(
        f"{path}: the file holds no table of tensors ({found}); save `model.state_dict()`, "
        f"bare or under one of the keys {', '.join(WRAPPERS)}"
    )


def _stripped(state: State, expected: Iterable[str]) -> tuple[State, str]:
    """Names without the prefixes that all of them carry, unless the network's own carry them."""
    own, prefix = set(expected), ""
    while not own & state.keys():
        shared = [p for p in PREFIXES if all(name.startswith(p) for name in state)]
        if not shared:
            break
        prefix += shared[0]
        state = {name.removeprefix(shared[0]): tensor for name, tensor in state.items()}
    return state, prefix


def _check_names(path: Path, state: State, expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    said = []
    if missing:
        said.append(f"{_counted(missing)} of the network not in the file")
    if extra:
        said.append(f"{_counted(extra)} of the file not in the network")
    if said:
        raise UserError(
            f"{path}: {' and '.join(said)}; the weights belong to another network, "
            "and part of them is never loaded"
        )


def _counted(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3])) + (", …" if len(names) > 3 else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown})"


def _check_shapes(path: Path, state: State, expected: Mapping[str, Tensor]) -> None:
    wrong = [name for name in expected if state[name].shape != expected[name].shape]
    if not wrong:
        return
    name = wrong[0]
    there, here = list(state[name].shape), list(expected[name].shape)
    both = f"{name!r} is {there} in the file and {here} in the network"
    if _is_classifier(wrong, state, expected):
        raise UserError(
            f"{path}: the file has {there[0]} classes, the recipe {here[0]} ({both}); "
            f"train on its classes, or take weights for {here[0]} classes"
        )
    raise UserError(f"{path}: {both}; the weights belong to a network of another size")


def _is_classifier(wrong: list[str], state: State, expected: Mapping[str, Tensor]) -> bool:
    """Whether only the number of outputs differs: any other layer would upset the one after it."""
    pairs = {(state[name].shape[:1], expected[name].shape[:1]) for name in wrong}
    same_rest = all(state[name].shape[1:] == expected[name].shape[1:] for name in wrong)
    return len(pairs) == 1 and same_rest and all(expected[name].ndim > 0 for name in wrong)
