"""The contract of a weights file: the classes and images that its network was trained for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from stillhouse.errors import UserError

CONTRACT_SUFFIX = ".json"  # network.safetensors has its contract in network.safetensors.json


@dataclass(frozen=True)
class Contract:
    """The classes and images that a network was trained for."""

    name: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head: str = ""  # the kind of head that replaces its own classifier; "" for none

    def text(self) -> str:
        """The contract as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def read_contract(weights: Path) -> Contract | None:
    """The contract beside a weights file, None if there is none; raises UserError if damaged."""
    path = weights.with_name(weights.name + CONTRACT_SUFFIX)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Contract(
            str(content["name"]),
            tuple(map(str, content["classes"])),
            int(content["channels"]),
            (int(content["size"][0]), int(content["size"][1])),
            tuple(map(float, content["mean"])),
            tuple(map(float, content["std"])),
            str(content.get("head", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path} should describe what the weights beside it were trained for, but cannot be "
            f"read: {error}; delete it, and set teacher.mean, std and size yourself"
        ) from error
