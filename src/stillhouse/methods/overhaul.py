"""Overhaul of feature distillation: maps before the ReLU of each stage (Heo et al., 2019)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor, nn

from stillhouse.functional.boundary import expected_negative, partial_squares
from stillhouse.functional.pooling import pool
from stillhouse.methods.base import Method
from stillhouse.methods.maps import check_maps
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.models.connectors import pointwise_norm
from stillhouse.models.norms import find_norms
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import spec


@spec
class OFD(PairedSpec):
    """Partial squared difference of maps before the ReLU; the teacher's are clamped at a margin.

    `weight` is that of the last stage; each earlier stage has half the weight of the next.
    """

    weight: float = 1e-3
    pairs: PairsOption = field(default="stages", kw_only=True)
    name: Literal["ofd"] = "ofd"
    card: ClassVar[Card] = Card(
        "Overhaul of feature distillation",
        "weight * sum over stages i of n of 2^-(n - 1 - i) / N * sum ( s - max(t, m) )^2 where "
        "t > 0 or s > max(t, m),  s = BN(conv1x1(f_s)), m = E[t | t < 0] by the BatchNorm",
        "Heo et al.: A comprehensive overhaul of feature distillation, ICCV 2019",
        ("features",),
        "a 1x1 convolution with BatchNorm per stage, discarded after training",
        "The teacher needs BatchNorm right before the ReLU of each stage (ResNet, WRN, VGG; no "
        "transformer). It is a sum over the map, so the weight depends on the image size (1e-4 "
        "for ImageNet). The paper has the teacher's BatchNorm in train mode; here it is in eval "
        "mode, so that the teacher does not change.",
    )

    def build(self, setting: Setting) -> Method:
        """The method, with a connector and the teacher's margins for each pair."""
        pairs = setting.before_activation(self.taps(setting), "student")
        maps = check_maps(setting, setting.before_activation(pairs, "teacher"))
        batch_norms = find_norms(setting.teacher, [pair.teacher for pair in maps], setting.example)
        return Overhaul(
            self,
            [
                AdaptedPair(
                    p.student, p.teacher, pointwise_norm(p.student_shape[1], p.teacher_shape[1])
                )
                for p in maps
            ],
            [margin(batch_norms[pair.teacher]) for pair in maps],
        )


def margin(norm: nn.BatchNorm2d) -> Tensor:
    """The expected value of each channel where it is negative: -> (C,)."""
    return expected_negative(norm.weight.detach(), norm.bias.detach())


class Overhaul(Paired):
    """Partial squared differences; the teacher's map is pooled to the student's size."""

    def __init__(self, spec: OFD, pairs: list[AdaptedPair], margins: list[Tensor]) -> None:
        last = len(pairs) - 1
        super().__init__(spec, pairs, [spec.weight * 2.0 ** (i - last) for i in range(last + 1)])
        for index, margin in enumerate(margins):
            self.register_buffer(f"margin{index}", margin[:, None, None])

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image: (N, C, H, W), (N, C, h, w) -> (N,)."""
        teacher = pool(teacher, *student.shape[2:])
        return partial_squares(student, teacher, self.get_buffer(f"margin{index}"))
