"""Refusing a teacher that has nothing to teach."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.errors import UserError


def gate(
    name: str, summary: Mapping[str, float], headline: str, chance: float, images: int
) -> None:
    """Refuse a score that a guess could have reached.

    A teacher passes four standard errors above chance and at least half as much again as chance:
    a random head, a permuted class list and a wrong normalisation all stay below.
    """
    score = summary[headline]
    error = (chance * (100 - chance) / max(1, images)) ** 0.5
    needed = min(max(chance + 4 * error, 1.5 * chance), (100 + chance) / 2)
    if score < needed:
        raise UserError(
            f"the teacher {name} reaches {headline} {score:.1f} on {images} validation images, "
            f"where a guess reaches {chance:.1f}: check its weights, its class order and its "
            "normalisation, or say teacher.gate=false to use it all the same"
        )
