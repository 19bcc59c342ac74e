"""The contract of a weights file: the classes and images that its network was trained for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError
from stillhouse.files import open_regular, read_json

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
    sha256: str = ""  # of the file of weights; "" if it is not known

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
        str(content.get("sha256", "")),
    )


def check_file(weights: Path) -> None:
    """Raise UserError for a file of weights with other bytes than its contract was written for."""
    contract = read_contract(weights)
    if contract and contract.sha256 and contract.sha256 != file_hash(weights):
        raise UserError(
            f"{weights} is damaged: it differs from what was written; restore a copy of it or "
            "train it again, or if it was changed on purpose, remove sha256 from "
            f"{weights.name}{CONTRACT_SUFFIX} beside it"
        )


def file_hash(path: Path) -> str:
    """The SHA-256 of the bytes of a file; "" for one that cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # which reading the weights reports
        return ""
