"""Networks of other packages: factories that are registered, or named by their module.

A name `package.module:factory` runs code. It may stand in a recipe that somebody else has written,
so it is refused unless the user says that such names are trusted.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.plugins import entry_points

PLUGINS = "stillhouse.models"  # the entry point group: NAME -> (classes, channels, **options)
TRUST = "--trust"  # the option of all commands

# Names under which a factory may take what every network is made for.
NAMES = {"classes": ("classes", "num_classes"), "channels": ("channels", "in_chans", "in_channels")}

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)
_folders: dict[str, None] = {}  # of recipes, whose modules are found beside them


@contextmanager
def trust_factories(trust: bool = True) -> Iterator[None]:
    """A context in which names of the form `package.module:factory` are imported and called.

    With `trust` false it changes nothing.
    """
    token = _trusted.set(trust or _trusted.get())
    try:
        yield
    finally:
        _trusted.reset(token)


def factories_are_trusted() -> bool:
    """Whether names of the form `package.module:factory` are imported."""
    return _trusted.get()


def trust_word() -> str:
    """What the same command needs again: ` --trust`, or nothing."""
    return f" {TRUST}" if factories_are_trusted() else ""


def search_folder(folder: Path) -> None:
    """Also look for modules of factories in the folder of a recipe, where they are trusted."""
    _folders[str(folder.absolute())] = None
    if factories_are_trusted():
        extend_path()


def extend_path() -> None:
    """Append the folders of recipes and the working directory to the path of modules.

    Processes that are started later inherit it.
    """
    sys.path += [folder for folder in (*_folders, str(Path.cwd())) if folder not in sys.path]


def plugins() -> dict[str, Callable[[], Any]]:
    """The networks of installed packages, by name."""
    return {point.name: point.load for point in entry_points(group=PLUGINS)}


def load_factory(name: str, load: Callable[[], Any]) -> Any:
    """The factory that an installed package registers."""
    try:
        return load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{name}: the installed package that offers it cannot be imported ({error}); "
            "reinstall or update it"
        ) from error


def import_factory(name: str) -> Any:
    """The factory at `package.module:factory`; raises UserError unless such names are trusted."""
    if not factories_are_trusted():
        raise UserError(
            f"{quote(name)} names code to be run; if you trust where it comes from, add --trust to "
            "the command (in Python: trust=True, or `with trust_factories():`)"
        )
    path, _, attribute = name.partition(":")
    extend_path()
    try:
        module = importlib.import_module(path)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{name}: importing {quote(path)} failed ({error}); put its file beside the recipe or "
            "into the working directory, or its folder on PYTHONPATH"
        ) from error
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, dir(module))
        raise UserError(f"{name}: no {quote(attribute)} in {path}{hint}")
    return getattr(module, attribute)


def call_factory(
    name: str, factory: Any, classes: int, channels: int, options: Mapping[str, Any]
) -> Any:
    """Call a factory with the arguments that it accepts; refuse one that it does not."""
    if not callable(factory):
        raise UserError(
            f"{name}: a {type(factory).__name__} is not a factory; name a function or class"
        )
    accepted = inspect.signature(factory).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    given = {"classes": classes, "channels": channels}
    if channels == 3 and not open_ended and not set(NAMES["channels"]) & set(accepted):
        del given["channels"]
    named = {accepted_name(key, accepted): value for key, value in given.items()}
    wanted = {**named, **options}
    for option in wanted:
        if not open_ended and option not in accepted:
            raise UserError(
                f"{name}: the factory takes no argument {quote(option)}, only "
                f"({', '.join(accepted)}); give it one{did_you_mean(option, accepted)}"
            )
    return factory(**wanted)


def accepted_name(key: str, accepted: Mapping[str, Any]) -> str:
    """The name under which a factory takes `classes` or `channels`: num_classes, in_chans."""
    return next((name for name in NAMES[key] if name in accepted), key)
