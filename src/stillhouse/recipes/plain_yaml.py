"""YAML as plain data: mappings, lists, texts, numbers, true, false and null."""

from __future__ import annotations

from typing import Any

import yaml

from stillhouse.data.formats.yaml_limits import LOADER, check_limits, refuse
from stillhouse.files import LARGEST_INTEGER

FILE_LIMIT = 2**20  # bytes of a file
PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class PlainLoader(LOADER):  # type: ignore[misc]
    """Makes plain data only; a date is the text that it is written as."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """The value of a node; raises a YAMLError for one that is not of its tag."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            refuse(f"not a value of {node.tag.rpartition(':')[2]}", node.start_mark, error)
        if type(value) is int and abs(value) > LARGEST_INTEGER:
            refuse("an integer of more than 64 bits", node.start_mark)
        return value


PlainLoader.yaml_constructors = {
    tag: make
    for tag, make in LOADER.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in PLAIN_TAGS
}
PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
    for first, known in LOADER.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """The plain data that a text holds; raises yaml.YAMLError for anything else."""
    check_limits(text)
    return yaml.load(text, PlainLoader)
