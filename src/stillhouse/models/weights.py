"""Files of weights: loaded completely or not at all, without running code, written atomically."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.files import atomic_write, write_error
from stillhouse.models.torch_file import load_torch_file
from stillhouse.models.transformers_networks import current_names

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model", "student")  # keys that hold the weights
_MAX_WRAPPERS = 8  # inside each other; a mapping may contain itself
PREFIXES = ("module.", "model.", "_orig_mod.")  # of DDP, trainers and torch.compile

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was loaded from a file."""

    path: Path
    tensors: int
    wrapper: str = ""  # the key, or keys joined by a dot, that held the weights
    prefix: str = ""  # that was removed from every name


def load_weights(model: nn.Module, path: str | Path) -> LoadReport:
    """Load the weights of a file: all tensors of file and network, or UserError and no change."""
    path, expected = Path(path), model.state_dict()
    state, wrapper, prefix = _read_state(path, expected)
    if state.keys() != expected.keys():
        state = dict(current_names(model, state))
    whole = _counted_batches(expected) | state
    _check_names(path, whole, expected)
    _check_shapes(path, whole, expected)
    _check_kinds(path, whole, expected)
    model.load_state_dict(whole, strict=True)
    return LoadReport(path, len(state), wrapper, prefix)


def load_pretrained(model: nn.Module, path: str | Path) -> LoadReport:
    """Load the weights of a file into a network with another classifier, or none.

    Tensors of the file that the network does not have are ignored, and a classifier for another
    number of classes keeps its weights; everything else must be in the file. A network with a
    `pretrained_part`, such as the backbone of a detector, takes weights of that part, too.
    """
    path, expected = Path(path), model.state_dict()
    state, wrapper, prefix = _read_state(path, expected)
    part = getattr(model, "pretrained_part", None)
    if isinstance(part, nn.Module) and not expected.keys() & state.keys():
        return load_pretrained(part, path)
    known = _counted_batches(expected) | state
    whole = {name: known[name] for name in expected if name in known}
    _check_names(path, whole, expected)
    wrong = [name for name in expected if whole[name].shape != expected[name].shape]
    if wrong and not _is_classifier(wrong, whole, expected):
        _check_shapes(path, whole, expected)
    kept = {name: tensor for name, tensor in whole.items() if name not in wrong}
    _check_kinds(path, kept, expected)
    model.load_state_dict(expected | kept, strict=True)
    return LoadReport(path, len(kept), wrapper, prefix)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write weights as safetensors; an existing file is replaced once the new one is complete."""
    path = Path(path)
    # Tied weights are written under each name, so that plain `load_state_dict` accepts the file.
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


# ----------------------------------------------------------------------------------------- reading


def _read(path: Path) -> Any:
    _check_there(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(_damaged(path, "safetensors file", str(error))) from error
    try:
        return load_torch_file(path)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise UserError(
                f"{path}: the file holds code or objects ({code[1]}), which are never loaded; "
                "load it where you trust it and save only `model.state_dict()`"
            ) from error
        raise UserError(_damaged(path, "file of torch.save")) from error
    except ValueError as error:
        raise UserError(_damaged(path, "file of torch.save", str(error))) from error
    except (RuntimeError, EOFError, OSError, KeyError, AttributeError) as error:
        raise UserError(_damaged(path, "file of torch.save")) from error


def _check_there(path: Path) -> None:
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.suffix in SUFFIXES)
        inside = f"name a file in it: {', '.join(files[:5])}" if files else "it has no weights"
        raise UserError(f"{path} is a folder, not a file of weights; {inside}")
    if not path.exists():
        folder = path.parent
        if not folder.is_dir():
            raise UserError(f"{path}: there is no folder {quote(str(folder))}")
        siblings = sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)
        raise UserError(f"{path}: there is no such file{did_you_mean(path.name, siblings)}")
    if not path.is_file():
        raise UserError(f"{path} is a pipe or a device, not a file of weights; copy it to a file")
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: files of weights end in {', '.join(SUFFIXES)}, not in {quote(path.suffix)}"
        )


def _damaged(path: Path, kind: str, detail: str = "") -> str:
    reason = f" ({detail})" if detail else ""
    size = path.stat().st_size
    return f"{path}: not a readable {kind}{reason}; its {size} bytes may be cut off: fetch it again"


# ---------------------------------------------------------------------------------------- contents


def _read_state(path: Path, expected: State) -> tuple[State, str, str]:
    """The tensors of a file under the network's names, their wrapper and their prefix."""
    state, wrapper = _unwrapped(path, _read(path))
    state, prefix = _stripped(state, expected)
    return state, wrapper, prefix


def _counted_batches(expected: State) -> State:
    """The counters of BatchNorm, which old files lack."""
    return {n: t for n, t in expected.items() if n.endswith("num_batches_tracked")}


def _unwrapped(path: Path, content: Any) -> tuple[State, str]:
    """The state dict in a checkpoint, and the keys that led there."""
    keys: list[str] = []
    while isinstance(content, Mapping) and len(keys) < _MAX_WRAPPERS:
        inner = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        keys.append(inner[0])
        content = content[inner[0]]
    if isinstance(content, Mapping) and content:
        others = [name for name, value in content.items() if not isinstance(value, Tensor)]
        if not others:
            return {str(name): value for name, value in content.items()}, ".".join(keys)
        reason = f"{quote(str(others[0]))} is a {type(content[others[0]]).__name__}"
    else:
        reason = "it is empty" if content == {} else f"it is a {type(content).__name__}"
    raise UserError(
        f"{path}: the file holds no state dict ({reason}); save `model.state_dict()`, by itself or "
        f"under one of the keys {', '.join(WRAPPERS)}"
    )


def _stripped(state: State, expected: Iterable[str]) -> tuple[State, str]:
    """Names without the prefixes that all of them have and the network's names have not."""
    names, prefix = set(expected), ""
    while not names & state.keys():
        shared = [p for p in PREFIXES if all(name.startswith(p) for name in state)]
        if not shared:
            break
        prefix += shared[0]
        state = {name.removeprefix(shared[0]): tensor for name, tensor in state.items()}
    return state, prefix


def _check_names(path: Path, state: State, expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    problems = []
    if missing:
        problems.append(f"{_listed(missing)} of the network not in the file")
    if extra:
        problems.append(f"{_listed(extra)} of the file not in the network")
    if problems:
        raise UserError(
            f"{path}: {' and '.join(problems)}; the weights belong to another network, "
            "and weights are not loaded in part"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(quote, names[:3])) + (", …" if len(names) > 3 else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown})"


def _check_shapes(path: Path, state: State, expected: Mapping[str, Tensor]) -> None:
    wrong = [name for name in expected if state[name].shape != expected[name].shape]
    if not wrong:
        return
    name = wrong[0]
    file_shape, shape = list(state[name].shape), list(expected[name].shape)
    difference = f"{quote(name)} is {file_shape} in the file and {shape} in the network"
    if _is_classifier(wrong, state, expected):
        raise UserError(
            f"{path}: the file has {file_shape[0]} classes, the recipe {shape[0]} ({difference}); "
            f"take weights for {shape[0]} classes, or name those of a teacher in teacher.classes"
        )
    raise UserError(f"{path}: {difference}; the weights belong to a network of another size")


def _check_kinds(path: Path, state: State, expected: Mapping[str, Tensor]) -> None:
    """Raise UserError for integers where the network has floats, and the like."""
    for name, tensor in state.items():
        kind, wanted = _kind(tensor), _kind(expected[name])
        if kind != wanted:
            raise UserError(
                f"{path}: {quote(name)} holds {kind} numbers ({tensor.dtype}), where the network "
                f"has {wanted} ones; save its weights as they were trained"
            )


def _kind(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_complex():
        return "complex"
    if tensor.is_floating_point():
        return "floating-point"
    return "boolean" if tensor.dtype == torch.bool else "integer"


def _is_classifier(wrong: list[str], state: State, expected: Mapping[str, Tensor]) -> bool:
    """Whether only the number of outputs of one layer differs, which only a classifier can."""
    pairs = {(state[name].shape[:1], expected[name].shape[:1]) for name in wrong}
    same_rest = all(state[name].shape[1:] == expected[name].shape[1:] for name in wrong)
    return len(pairs) == 1 and same_rest and all(expected[name].ndim > 0 for name in wrong)
