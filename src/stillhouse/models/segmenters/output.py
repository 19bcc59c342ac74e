"""What a network for semantic segmentation returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.models.scores import main_tensor

MAP_AXES = 4  # N, C, H, W


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class logits of each place of N images, and those of an auxiliary head.

    Maps may be smaller than the images; they are resized where labels or masks are compared.
    """

    logits: Tensor  # (N, C, h, w)
    auxiliary: Tensor | None = None  # (N, C, h', w')

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.logits.shape[1]

    def select(self, index: Tensor) -> Segmentation:
        """Some classes, in the order of their indices: (K,) int64."""
        auxiliary = None if self.auxiliary is None else self.auxiliary.index_select(1, index)
        return Segmentation(self.logits.index_select(1, index), auxiliary)


def read_segmentation(output: Any) -> Segmentation:
    """The logits of a network of this library, of torchvision (`out`, `aux`) or of transformers.

    A plain tensor (N, C, h, w), the first of several, and an output with `.logits` are read, too.
    Raises UserError for others.
    """
    if isinstance(output, Segmentation):
        return output
    if isinstance(output, Mapping) and "out" in output:
        found = Segmentation(output["out"], output.get("aux"))
    else:
        main = main_tensor(output)
        if main is None:
            raise UserError(
                f"the network returns a {type(output).__name__}, and segmentation needs class "
                "scores of each place: a tensor (N, C, H, W), a mapping with `out`, or an output "
                "with `.logits`"
            )
        found = Segmentation(main)
    for part in (found.logits, found.auxiliary):
        if part is not None and part.ndim != MAP_AXES:
            raise UserError(
                f"the network returns scores of shape {tuple(part.shape)}, and segmentation needs "
                "those of each place, (N, C, H, W); take segmenter/deeplabv3 or another one of "
                "`stillhouse models segmenter`"
            )
    return found
