"""The control: a student that is trained without a teacher."""

from __future__ import annotations

from typing import ClassVar, Literal

from stillhouse.methods.base import Method
from stillhouse.methods.combined import NoTerms
from stillhouse.methods.setting import Setting
from stillhouse.spec import spec

CONTROL: Literal["none"] = "none"


@spec
class Control:
    """No distillation: the student is trained on labels only."""

    name: Literal["none"] = CONTROL
    teaches: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    storable: ClassVar[bool | None] = True
    moves_teacher: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    sites: ClassVar[tuple[str, ...]] = ()

    def build(self, setting: Setting) -> Method:
        """A method without terms."""
        return NoTerms()
