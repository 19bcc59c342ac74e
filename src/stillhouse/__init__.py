"""Distil vision networks: a small student nearly as good as its teacher, and the evidence.

Names are found when they are first used, so that importing the package is quick and does nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse import data, functional, methods, models
    from stillhouse.batches import Batch, Objects
    from stillhouse.distiller import Distiller
    from stillhouse.errors import UserError
    from stillhouse.models.factories import trust_factories
    from stillhouse.models.labelwise import LabelwiseHead, labelwise
    from stillhouse.objectives import presets
    from stillhouse.objectives.logit import LogitObjective
    from stillhouse.recipes.load import load
    from stillhouse.runs.execute import execute
    from stillhouse.runs.predict import load_student
    from stillhouse.tasks.classification import Classification
    from stillhouse.tasks.multilabel import Multilabel
    from stillhouse.types import Clock, Lesson, Site, Term, Trace

__version__ = "0.2.0"

_HOMES = {
    "Batch": "stillhouse.batches",
    "Classification": "stillhouse.tasks.classification",
    "Clock": "stillhouse.types",
    "Distiller": "stillhouse.distiller",
    "Objects": "stillhouse.batches",
    "LabelwiseHead": "stillhouse.models.labelwise",
    "Lesson": "stillhouse.types",
    "LogitObjective": "stillhouse.objectives.logit",
    "Multilabel": "stillhouse.tasks.multilabel",
    "Site": "stillhouse.types",
    "Term": "stillhouse.types",
    "Trace": "stillhouse.types",
    "UserError": "stillhouse.errors",
    "execute": "stillhouse.runs.execute",
    "labelwise": "stillhouse.models.labelwise",
    "load": "stillhouse.recipes.load",
    "load_student": "stillhouse.runs.predict",
    "trust_factories": "stillhouse.models.factories",
}
_ROOMS = {
    "data": "stillhouse.data",
    "functional": "stillhouse.functional",
    "methods": "stillhouse.methods",
    "models": "stillhouse.models",
    "presets": "stillhouse.objectives.presets",
}

__all__ = [
    "Batch",
    "Classification",
    "Clock",
    "Distiller",
    "LabelwiseHead",
    "Lesson",
    "LogitObjective",
    "Multilabel",
    "Objects",
    "Site",
    "Term",
    "Trace",
    "UserError",
    "data",
    "execute",
    "functional",
    "labelwise",
    "load",
    "load_student",
    "methods",
    "models",
    "presets",
    "trust_factories",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(_ROOMS[name])
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'stillhouse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
