"""Intra-class feature variation distillation (Wang Y. et al., 2020)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.functional.prototypes import prototype_similarity
from stillhouse.methods.base import Method
from stillhouse.methods.maps import check_maps
from stillhouse.methods.paired import PairedSpec
from stillhouse.methods.segmentation import AtMaps, PixelMaps, number_of_classes
from stillhouse.methods.setting import Setting
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.base import Variant
from stillhouse.spec import spec
from stillhouse.types import Lesson, Term, Terms


@spec
class IFVD(PairedSpec):
    """Matches how similar each pixel is to the mean feature of its class in its image.

    `variant` "paper" is the mean over pixels with a class. "reference" also counts ignored pixels
    of images with labels, as the authors' code does; their difference is 0.
    """

    weight: float = 20.0
    variant: Variant = "paper"
    name: Literal["ifvd"] = "ifvd"
    card: ClassVar[Card] = Card(
        "Intra-class feature variation distillation",
        "weight * mean_p ( cos(f_s[p], m_s) - cos(f_t[p], m_t) )^2,  m the mean feature of the "
        "pixels of the image with the class of p",
        "Wang Y. et al.: Intra-class feature variation distillation for semantic segmentation, "
        "ECCV 2020",
        ("features", "masks"),
        "one mean per class and image, one cosine per pixel; no trainable parameters",
        "The authors' code has weight 200, beside kd of weight 10 at site pixel and an adversarial "
        "loss; the weight here is for kd of weight 1. Labels are those of the nearest pixel at the "
        "size of the map. A class of a single pixel carries no information.",
    )

    def build(self, setting: Setting) -> Method:
        """The method; raises UserError for taps without maps, and for outputs that are not."""
        pairs = check_maps(setting, self.taps(setting))
        taps = tuple((pair.student, pair.teacher) for pair in pairs)
        return IntraClass(self, taps, number_of_classes(setting))


class IntraClass(AtMaps):
    """One term a pair: the mean over the pixels of all images."""

    spec: IFVD

    def compare(self, index: int, maps: PixelMaps, lesson: Lesson) -> Terms:
        """The squared differences over the number of pixels; 0 and no mass without labels."""
        difference = self.similarity(maps.student, maps) - self.similarity(maps.teacher, maps)
        weight = maps.weight[:, None]
        labelled = (maps.labels >= 0).to(weight.dtype)
        counted = labelled
        if self.spec.variant == "reference":  # all pixels of images that have any with a class
            counted = labelled.amax(1, keepdim=True).expand_as(labelled)
        total = (difference.square() * weight).sum()
        return {self.names[index]: Term(total, (counted * weight).sum(), self.spec.weight)}

    def similarity(self, features: Tensor, maps: PixelMaps) -> Tensor:
        """Of each pixel to the mean of its class, 0 without one: (N, C, h, w) -> (N, h w)."""
        return prototype_similarity(features.flatten(2).mT, maps.labels, self.classes)
