"""Fifth axis: one loss a row -> Term.

`rows` are (N,) or (N, C); `weight` is what the site says of each row, 0 for one that is not there.
`inner` says whether the classes of a row are summed or averaged, be they still apart or already
summed by a divergence. Other distances are means or angles by themselves, and heed it not.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from stillhouse.spec import spec
from stillhouse.types import Term


@spec
class Reduced:
    """What every reduction has."""

    inner: Literal["sum", "mean"] = "sum"
    counts_objects: ClassVar[bool] = False

    def flatten(self, losses: Tensor) -> Tensor:
        """One loss a row: (N, ...) -> (N,)."""
        if losses.ndim == 1:
            return losses
        flat = losses.flatten(1)
        return flat.sum(1) if self.inner == "sum" else flat.mean(1)


@spec
class Mean(Reduced):
    """Weighted mean over rows: (N, ...), (N,) -> Term."""

    kind: Literal["mean"] = "mean"

    def __call__(self, losses: Tensor, weight: Tensor, mass: Tensor | None) -> Term:
        return Term((self.flatten(losses) * weight).sum(), weight.sum())


@spec
class Total(Reduced):
    """Weighted sum over the rows of all ranks: (N, ...), (N,) -> Term."""

    kind: Literal["total"] = "total"

    def __call__(self, losses: Tensor, weight: Tensor, mass: Tensor | None) -> Term:
        total = (self.flatten(losses) * weight).sum()
        return Term(total, total.new_tensor(1.0), shared=True)


@spec
class PerObject(Reduced):
    """Weighted sum over rows by the site's mass, which counts objects: (N, ...), (N,) -> Term."""

    kind: Literal["per_object"] = "per_object"
    counts_objects: ClassVar[bool] = True

    def __call__(self, losses: Tensor, weight: Tensor, mass: Tensor | None) -> Term:
        if mass is None:
            raise ValueError("per_object divides by the site's mass, and this site has none")
        return Term((self.flatten(losses) * weight).sum(), mass)


Reduction = Annotated[Mean | Total | PerObject, Field(discriminator="kind")]
