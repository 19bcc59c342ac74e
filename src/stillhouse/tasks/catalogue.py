"""Every task that a recipe can name. The union is the registry."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from stillhouse.spec import BY_NAME, members
from stillhouse.tasks.classification import Classification, ClassificationSpec
from stillhouse.tasks.multilabel import Multilabel, MultilabelSpec

TASKS = {"classification": Classification, "multilabel": Multilabel}  # with default options


def default_name(value: Any) -> Any:
    """Options without a name are those of classification."""
    if isinstance(value, dict) and "name" not in value:
        return {"name": "classification", **value}
    return value


TaskSpec = Annotated[
    ClassificationSpec | MultilabelSpec,
    Field(discriminator="name"),
    BeforeValidator(default_name),
    BY_NAME,
]


def catalogue() -> dict[str, type]:
    """The spec of every task by name."""
    return {str(task.name): task for task in members(TaskSpec)}  # type: ignore[attr-defined]
