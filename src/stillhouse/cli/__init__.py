"""The command line. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from stillhouse.errors import UserError, quote

DEBUG, TRUST = "--debug", "--trust"  # options of all commands
INTERRUPTED = 130  # the exit code after Ctrl-C


class CommandExit(Exception):
    """Ends a command with an exit code, after it has printed its own message."""

    def __init__(self, code: int) -> None:
        self.code = code


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit: 0 on success, 2 after an error, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = DEBUG in arguments
    if debug:
        show_tracebacks()
    try:
        with trusting(TRUST in arguments):
            code = invoke([word for word in arguments if word not in (DEBUG, TRUST)])
    except UserError as error:
        if debug:
            raise
        rank = os.environ.get("RANK", "0")  # set by torchrun
        print(f"error{'' if rank == '0' else f' (rank {rank})'}: {error}", file=sys.stderr)
        code = 2
    except CommandExit as end:
        code = end.code
    except KeyboardInterrupt:
        print("interrupted before training started; nothing was lost", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if debug or error.errno != errno.ENAMETOOLONG:
            raise
        print(f"error: {quote(str(error.filename))}: {error.strerror}; shorten it", file=sys.stderr)
        code = 2
    sys.exit(code)


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """A context in which recipes may name networks by their module, if the user trusts them."""
    if not trust:
        yield
        return
    from stillhouse.models.factories import trust_factories

    with trust_factories():
        yield


def show_tracebacks() -> None:
    """Print the tracebacks of errors that a report only names."""
    logger = logging.getLogger("stillhouse")
    logger.setLevel(logging.DEBUG)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())


def invoke(arguments: list[str]) -> int:
    """Parse the arguments and run the command they name; returns the exit code."""
    from stillhouse.cli.app import app

    try:
        code = app(args=arguments, prog_name="stillhouse", standalone_mode=False)
        sys.stdout.flush()  # so that a closed pipe is noticed while it can be handled
    except SystemExit:  # raised by typer if the pipe was closed
        return 0
    except Exception as error:
        # typer has its own copy of click, whose errors print themselves
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if not callable(show) or not isinstance(code, int):
            raise
        show()
        return code
    if code == INTERRUPTED:  # returned by typer after Ctrl-C, without a message
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0
