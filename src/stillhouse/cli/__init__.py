"""The command line. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stillhouse.errors import UserError, quote

DEBUG, TRUST = "--debug", "--trust"  # options of all commands
REMEDIES = {  # for errors that any command can meet
    errno.ENAMETOOLONG: "shorten it",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "make it readable and writable",
}
LOADER_DIED = "DataLoader worker"  # in the message of torch
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
        check_arguments(arguments)
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
        discard_output()  # the reader closed the pipe
        code = 0
    except OSError as error:
        if debug or error.errno not in REMEDIES:
            raise
        place = quote(str(error.filename)) if error.filename else "the output"
        remedy = REMEDIES[error.errno]
        print(f"error: {place}: {error.strerror}; {remedy}", file=sys.stderr)
        if not error.filename:
            discard_output()
        code = 2
    except RuntimeError as error:
        if debug or LOADER_DIED not in str(error):
            raise
        print(f"error: {describe_dead_loader(error)}", file=sys.stderr)
        code = 2
    sys.exit(code)


def check_arguments(arguments: list[str]) -> None:
    """Raise UserError for an argument that is no UTF-8, as files and messages are."""
    for word in arguments:
        if not word.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise UserError(
                f"the argument {quote(word)} is not in UTF-8; rename the file or folder"
            )


def discard_output() -> None:
    """Write what is left of stdout nowhere, so that the interpreter does not try to flush it."""
    with suppress(OSError, ValueError):  # of a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe_dead_loader(error: RuntimeError) -> str:
    """The sentence about a process that loads images and was killed."""
    reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
    return (
        f"{reason}, most often for lack of memory; lower engine.workers or data.batch, and "
        "continue with --resume"
    )


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
