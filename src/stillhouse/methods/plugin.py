"""Methods of installed packages, which are registered as entry points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, Literal

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.methods.base import Method
from stillhouse.methods.setting import Setting
from stillhouse.plugins import entry_points
from stillhouse.spec import spec

GROUP = "stillhouse.methods"  # the entry point group: NAME -> factory(**options) -> Method


@spec
class Plugin:
    """A method of an installed package: the entry point `entry`, called with `options`."""

    entry: str
    options: dict[str, Any] = field(default_factory=dict)
    name: Literal["plugin"] = "plugin"
    teaches: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[bool | None] = None  # not known before it is built
    moves_teacher: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    sites: ClassVar[tuple[str, ...]] = ()

    def build(self, setting: Setting) -> Method:
        """The method that the entry point returns; raises UserError where there is none."""
        points = {point.name: point for point in entry_points(group=GROUP)}
        if self.entry not in points:
            raise UserError(
                f"no installed package provides a method {quote(self.entry)}"
                + (did_you_mean(self.entry, points) or f"; {len(points)} are registered in {GROUP}")
            )
        factory: Callable[..., Any] = points[self.entry].load()
        try:
            method = factory(**self.options)
        except (TypeError, ValueError) as error:
            raise UserError(f"method {quote(self.entry)} cannot be built: {error}") from error
        if not isinstance(method, Method):
            raise UserError(
                f"the entry point {quote(self.entry)} of {GROUP} must return a stillhouse Method, "
                f"got {type(method).__name__}"
            )
        return method
