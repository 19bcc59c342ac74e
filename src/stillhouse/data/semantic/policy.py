"""What to do with images and masks that have a problem."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.data.problems import check_bool, check_choice

CHOICES = {
    "missing": ("skip", "fail"),
    "unlabelled": ("keep", "skip", "fail"),
    "broken": ("skip", "fail"),
    "mismatched": ("skip", "fail"),
    "unknown": ("ignore", "skip", "fail"),
    "empty": ("keep", "skip", "fail"),
}


@dataclass(frozen=True)
class MaskPolicy:
    """What to do with images and masks that have a problem, in the order in which it is done.

    With the defaults no mask is read before it is used. All are read once where `broken` or
    `unknown` is not to fail, `empty` is not to keep, or `stratify` is set.
    """

    missing: str = "fail"  # images that do not exist
    unlabelled: str = "fail"  # images without a mask; they are kept without labels
    broken: str = "fail"  # images or masks that cannot be read
    mismatched: str = "fail"  # masks of another size than their image
    unknown: str = "fail"  # masks with values that are no class
    empty: str = "keep"  # masks whose pixels are all ignored
    stratify: bool = False  # whether samples are held out by the classes in their masks

    def __post_init__(self) -> None:
        for option, known in CHOICES.items():
            check_choice(option, getattr(self, option), known)
        check_bool("stratify", self.stratify)

    @property
    def reads_masks(self) -> bool:
        """Whether all masks are read at the start."""
        defaults = (self.broken, self.unknown, self.empty) == ("fail", "fail", "keep")
        return self.stratify or not defaults
