"""Fifth axis: losses of rows -> Term.

Losses are (N,) or (N, C); `weight` is the site's weight of each row, 0 for rows to leave out.
`inner` is whether the classes of a row are summed or averaged, also where a divergence has summed
them. It has no effect on distances that are means or angles.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from stillhouse.spec import spec
from stillhouse.types import Term


@spec
class BaseReduction:
    """Base class of the reductions."""

    inner: Literal["sum", "mean"] = "sum"
    counts_objects: ClassVar[bool] = False

    def flatten(self, losses: Tensor) -> Tensor:
        """One loss per row: (N, ...) -> (N,)."""
        if losses.ndim == 1:
            return losses
        flat = losses.flatten(1)
        return flat.sum(1) if self.inner == "sum" else flat.mean(1)


@spec
class Mean(BaseReduction):
    """Weighted mean over rows: (N, ...), (N,) -> Term."""

    kind: Literal["mean"] = "mean"

    def __call__(self, losses: Tensor, weight: Tensor, mass: Tensor | None) -> Term:
        return Term((self.flatten(losses) * weight).sum(), weight.sum())


@spec
class Total(BaseReduction):
    """Weighted sum over the rows of all ranks: (N, ...), (N,) -> Term."""

    kind: Literal["total"] = "total"

    def __call__(self, losses: Tensor, weight: Tensor, mass: Tensor | None) -> Term:
        total = (self.flatten(losses) * weight).sum()
        return Term(total, total.new_tensor(1.0), shared=True)


@spec
class PerObject(BaseReduction):
    """Weighted sum over rows / the site's mass, the number of objects: (N, ...), (N,) -> Term."""

    kind: Literal["per_object"] = "per_object"
    counts_objects: ClassVar[bool] = True

    def __call__(self, losses: Tensor, weight: Tensor, mass: Tensor | None) -> Term:
        if mass is None:
            raise ValueError("per_object divides by the site's mass, but the site has none")
        return Term((self.flatten(losses) * weight).sum(), mass)


Reduction = Annotated[Mean | Total | PerObject, Field(discriminator="kind")]
