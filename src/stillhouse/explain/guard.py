"""A part of a page that fails is named with the reason, and the rest of the page is made."""

from __future__ import annotations

import logging

from stillhouse.errors import UserError
from stillhouse.explain.section import Section

HINT = "run `stillhouse explain RUN --debug` for the traceback"

_logger = logging.getLogger(__name__)


def log_traceback(what: str, error: Exception) -> None:
    """Log the traceback at level DEBUG, which `--debug` shows."""
    _logger.debug("%s: error", what, exc_info=error)


def error_text(error: Exception) -> str:
    """An error in one line: a UserError as it is, another one with its type."""
    text = next(iter(str(error).strip().splitlines()), "").rstrip(".")
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def failure_sentence(what: str, error: Exception, action: str = "computed") -> str:
    """`Calibration could not be computed: RuntimeError: ...; run ...`; logs the traceback."""
    log_traceback(what, error)
    hint = "" if isinstance(error, UserError) else f"; {HINT}"
    return f"{what} could not be {action}: {error_text(error)}{hint}."


def failed_section(name: str, title: str, error: Exception) -> Section:
    """The section of a diagnosis that raised an error."""
    return Section(name, title, (failure_sentence(title, error),), failed=True)
