"""Losses on feature maps, as objectives on rows of the maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.functional import rows
from stillhouse.objectives.activation import Raw, Softmax
from stillhouse.objectives.card import Card
from stillhouse.objectives.distance import Cosine, MeanSquaredError, Pearson
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.preprocess import Standardize
from stillhouse.objectives.presets.base import Objectives, Preset
from stillhouse.spec import spec
from stillhouse.types import Site

AdapterName = Literal["auto", "none", "pointwise"]
TapPairs = tuple[tuple[str, str], ...]  # (student tap, teacher tap)
PairsOption = TapPairs | Literal["stages", "stage_order", "last_stage", "levels"]
RelationDistance = Literal["pearson", "cosine"]
DISTANCES: dict[RelationDistance, type[Pearson] | type[Cosine]] = {
    "pearson": Pearson,
    "cosine": Cosine,
}


@spec
class FeaturePreset(Preset):
    """A loss on pairs of feature maps.

    `pairs` are (student tap, teacher tap), or a word for pairs of the two networks (see
    `Setting.resolve_pairs`); `adapter` maps the student's channels to the teacher's: a 1x1
    convolution ("pointwise"), nothing ("none"), or "auto", a convolution only where their numbers
    differ.
    """

    pairs: PairsOption = field(default=(("last", "last"),), kw_only=True)
    adapter: AdapterName = field(default="pointwise", kw_only=True)
    view: ClassVar[Callable[[Tensor], Tensor]]
    batch_wide: ClassVar[bool] = False  # whether a row spans all images
    # maps of different sizes: the larger is pooled to the smaller, or the student's interpolated
    resize: ClassVar[Literal["smaller", "teacher"]] = "smaller"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pairs:
            raise ValueError("`pairs` must name at least one student tap and teacher tap")

    def site(
        self,
        student: Tensor,
        teacher: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Site:
        """The rows of two maps of equal shape: (N, C, H, W), (N, C, H, W), (N,) -> Site."""
        if student.shape != teacher.shape:
            raise ValueError(
                f"{self.card.title} compares maps of equal shape, got {tuple(student.shape)} and "
                f"{tuple(teacher.shape)}; put an adapter between them"
            )
        view = type(self).view
        s, t = view(student), view(teacher)
        if weight is None:
            return Site(s, t)
        if self.batch_wide:  # images of weight 0 are removed from the rows
            keep = weight > 0
            return Site(view(student[keep]), view(teacher[keep]))
        return Site(s, t, weight=weight.repeat_interleave(len(s) // max(1, len(weight))))


@spec
class CWD(FeaturePreset):
    """KL between softmaxes over space, per channel (Shu et al., 2021)."""

    temperature: float = 4.0
    weight: float = 3.0
    adapter: AdapterName = field(default="auto", kw_only=True)
    name: Literal["cwd"] = "cwd"
    view: ClassVar[Callable[[Tensor], Tensor]] = rows.channels
    card: ClassVar[Card] = Card(
        "Channel-wise distillation",
        "weight * tau^2 / (N C) * sum KL( softmax_hw(f_t / tau) || softmax_hw(f_s / tau) )",
        "Shu et al.: Channel-wise knowledge distillation for dense prediction, ICCV 2021",
        ("features",),
        "one softmax per channel; a 1x1 convolution where channels differ",
        "The loss is 0 for a map of one pixel. It grows with the size of the map.",
    )

    def objectives(self) -> Objectives:
        """KD whose rows are channels."""
        return {"cwd": LogitObjective(activation=Softmax(self.temperature), weight=self.weight)}


@spec
class Mimic(FeaturePreset):
    """Mean squared difference of feature maps (Li Q. et al., 2017)."""

    weight: float = 1.0
    name: Literal["mimic"] = "mimic"
    view: ClassVar[Callable[[Tensor], Tensor]] = rows.images
    card: ClassVar[Card] = Card(
        "Feature mimicking",
        "weight / (N C H W) * sum (f_s - f_t)^2",
        "Li Q. et al.: Mimicking very efficient network for object detection, CVPR 2017",
        ("features",),
        "one subtraction; a 1x1 convolution of the student's map",
        "It also matches the scale of the teacher; dominated by channels with large activations.",
    )

    def objectives(self) -> Objectives:
        """One squared difference per image."""
        return {
            "mimic": LogitObjective(
                activation=Raw(), distance=MeanSquaredError(), weight=self.weight
            )
        }


@spec
class PKD(FeaturePreset):
    """Squared difference of channels standardised over the batch (Cao et al., 2022)."""

    weight: float = 6.0
    adapter: AdapterName = field(default="none", kw_only=True)
    name: Literal["pkd"] = "pkd"
    view: ClassVar[Callable[[Tensor], Tensor]] = rows.channels_of_batch
    batch_wide: ClassVar[bool] = True
    resize: ClassVar[Literal["smaller", "teacher"]] = "teacher"
    card: ClassVar[Card] = Card(
        "Pearson distillation of features",
        "weight / 2 * mean (S - T)^2,  S, T = channels standardised over images and pixels",
        "Cao et al.: PKD: General distillation framework for object detectors via Pearson "
        "correlation coefficient, NeurIPS 2022",
        ("features", "batch"),
        "a mean and a deviation per channel; maps of all ranks are gathered, and the student's are "
        "interpolated to the teacher's size",
        "Both networks need the same channels with the same meaning, since there is no adapter by "
        "default.",
    )

    def objectives(self) -> Objectives:
        """Half the squared difference of standardised channels."""
        standardize = Standardize(ddof=1, eps=1e-6)
        point = LogitObjective(standardize, Raw(), MeanSquaredError(), weight=self.weight / 2)
        return {"pkd": point}


@spec
class ChannelRelation(FeaturePreset):
    """Correlation over channels at each pixel (Huang et al., DIST+).

    `distance` cosine, which does not centre, is the paper's ablation.
    """

    weight: float = 1.0
    distance: RelationDistance = "pearson"
    name: Literal["channel_relation"] = "channel_relation"
    view: ClassVar[Callable[[Tensor], Tensor]] = rows.pixels
    card: ClassVar[Card] = Card(
        "Channel relation of DIST+",
        "weight / (N H W) * sum (1 - rho(f_s[n,:,h,w], f_t[n,:,h,w]))",
        "Huang et al.: DIST+, the journal extension of Knowledge distillation from a stronger "
        "teacher",
        ("features",),
        "one correlation per pixel; a 1x1 convolution between the networks",
        "A pixel with equal channels has no correlation and gets no gradient.",
    )

    def objectives(self) -> Objectives:
        """One correlation per pixel."""
        distance = DISTANCES[self.distance]()
        return {"cr": LogitObjective(activation=Raw(), distance=distance, weight=self.weight)}


@spec
class SpatialRelation(FeaturePreset):
    """Correlation over space of the channel sum (Huang et al., DIST+).

    `distance` cosine, which does not centre, is the paper's ablation.
    """

    weight: float = 1.0
    distance: RelationDistance = "pearson"
    name: Literal["spatial_relation"] = "spatial_relation"
    view: ClassVar[Callable[[Tensor], Tensor]] = rows.space
    card: ClassVar[Card] = Card(
        "Spatial relation of DIST+",
        "weight / N * sum (1 - rho(sum_c f_s[n], sum_c f_t[n]))",
        "Huang et al.: DIST+, the journal extension of Knowledge distillation from a stronger "
        "teacher",
        ("features",),
        "one correlation per image; a 1x1 convolution between the networks",
        "A map of one pixel has no correlation.",
    )

    def objectives(self) -> Objectives:
        """One correlation per image, over space."""
        distance = DISTANCES[self.distance]()
        return {"sr": LogitObjective(activation=Raw(), distance=distance, weight=self.weight)}
