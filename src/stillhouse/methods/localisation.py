"""Localisation distillation: the distribution of each side of a box (Zheng et al., 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.functional.divergence import softmax_kl
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.objectives.published import PriorLoss
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Site, Term, Terms

MAIN, REST, RELEASED = "edge", "edge_rest", "edge_rest_released"
SIDES = 4
MAIN_MASS, REST_MASS = 4.0, 16.0  # what the released code divides its sums by


@spec
class LD(ComposedMethod):
    """Localisation distillation in the main and the valuable region.

    `variant` "reference" is the released code: divergences are means over bins, the sums of the two
    regions are divided by 4 and by 16 whatever the number of priors, and the valuable region is
    found by the covered share of the anchor. "paper" has sums over bins, the mean over the weighted
    sides, and the region by DIoU. A weight of 0 leaves a region out.
    """

    temperature: float = 10.0
    weight: float = 0.25
    rest: float = 0.25  # the weight of the valuable region
    variant: Variant = field(default="reference", kw_only=True)
    name: Literal["ld"] = "ld"
    card: ClassVar[Card] = Card(
        "Localisation distillation",
        "weight * tau^2 * sum_main w KL(t || s) + rest * tau^2 * sum_valuable w KL(t || s),  "
        "distributions over the bins of each side; w the student's best score, or the IoU",
        "Zheng Z. et al.: Localization distillation for object detection, CVPR 2022",
        ("boxes", "objects"),
        "one softmax per side; nothing trainable",
        "Both networks must have the bins of GFocal. In the reference, the value grows with the "
        "number of positive priors.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature", "positive", self.temperature)
        if not (self.weight or self.rest):
            raise ValueError("ld needs a positive `weight` or `rest`")

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        return SideDistillation(self)

    def prior_losses(self) -> Mapping[str, PriorLoss]:
        """The losses of the four sides of each prior, by region."""
        method = SideDistillation(self)

        def losses(place: str, sites: Mapping[str, Site]) -> Tensor:
            return method.losses(sites[place]).view(-1, SIDES).sum(1)

        return {name: partial(losses, place) for name, (place, _, _) in method.regions.items()}


class SideDistillation(Method):
    """Tempered KL at the sides of priors in one or two regions."""

    def __init__(self, published: LD) -> None:
        super().__init__()
        self.spec = published
        self.label_share = published.label_share
        self.reference = published.variant == "reference"
        self.regions: dict[str, tuple[str, float, float]] = {}
        if published.weight:
            self.regions["main"] = (MAIN, published.weight, MAIN_MASS)
        if published.rest:
            rest = RELEASED if self.reference else REST
            self.regions["rest"] = (rest, published.rest, REST_MASS)
        self.sites = tuple(site for site, _, _ in self.regions.values())

    def forward(self, lesson: Lesson) -> Terms:
        """The terms `main` and `rest`."""
        ramp = self.spec.ramp_factor(lesson.clock)
        terms = {}
        for name, (place, weight, mass) in self.regions.items():
            term = self.compare(lesson.sites[place], mass)
            terms[name] = term._replace(weight=ramp * weight)
        return terms

    def compare(self, site: Site, mass: float) -> Term:
        """The weighted divergences of all sides: (R, bins) twice -> Term."""
        assert site.mass is not None
        total = self.losses(site).sum()
        if self.reference:
            return Term(total, total.new_tensor(mass))
        return Term(total, site.mass.to(total.dtype))

    def losses(self, site: Site) -> Tensor:
        """The weighted divergence of each side: (R, bins) twice -> (R,)."""
        tau = self.spec.temperature
        student, teacher = upcast(site.student), upcast(site.teacher.detach())
        assert site.weight is not None
        with full_precision(student):
            losses = tau**2 * softmax_kl(student, teacher, tau)
            if self.reference:
                losses = losses / student.shape[1]
            weight = site.weight.to(losses.dtype)
            return losses.where(weight > 0, 0) * weight
