"""What a network file says of itself, so that two networks can be fitted to each other."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from stillhouse.errors import UserError

BESIDE = ".json"  # network.safetensors has its contract in network.safetensors.json


@dataclass(frozen=True)
class Contract:
    """What a network was trained for."""

    name: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head: str = ""  # the kind of head that took the place of its own classifier

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def read_contract(weights: Path) -> Contract | None:
    """The contract beside a file of weights, None where there is none."""
    path = weights.with_name(weights.name + BESIDE)
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
            f"{path} should say what the weights beside it were trained for, and cannot be read: "
            f"{error}; delete it, and say teacher.mean, std and size yourself"
        ) from error
