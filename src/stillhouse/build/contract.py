"""The contract of a weights file: the classes and images that its network was trained for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillhouse.files import read_json

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
    remedy = (
        "it should describe what the weights beside it were trained for: delete it, and set "
        "teacher.mean, std and size yourself"
    )
    return read_json(path, parse_contract, remedy)


def parse_contract(content: dict[str, Any]) -> Contract:
    """A contract from the content of its file; raises ValueError, KeyError or TypeError."""
    return Contract(
        str(content["name"]),
        tuple(map(str, content["classes"])),
        int(content["channels"]),
        (int(content["size"][0]), int(content["size"][1])),
        tuple(map(float, content["mean"])),
        tuple(map(float, content["std"])),
        str(content.get("head", "")),
    )
