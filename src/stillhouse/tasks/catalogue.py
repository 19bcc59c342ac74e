"""The registry of tasks: the union of all that a recipe can name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from stillhouse.spec import BY_NAME
from stillhouse.tasks.classification import Classification, ClassificationSpec
from stillhouse.tasks.detection import Detection, DetectionSpec
from stillhouse.tasks.instance import Instance, InstanceSpec
from stillhouse.tasks.multilabel import Multilabel, MultilabelSpec
from stillhouse.tasks.semantic import Semantic, SemanticSpec

TASKS = {
    "classification": Classification,
    "multilabel": Multilabel,
    "detection": Detection,
    "semantic": Semantic,
    "instance": Instance,
}  # with default options


def default_name(value: Any) -> Any:
    """The options of a task, of classification if they have no name."""
    if isinstance(value, dict) and "name" not in value:
        return {"name": "classification", **value}
    return value


TaskSpec = Annotated[
    ClassificationSpec | MultilabelSpec | DetectionSpec | SemanticSpec | InstanceSpec,
    Field(discriminator="name"),
    BeforeValidator(default_name),
    BY_NAME,
]
