"""The command: parse, load, call. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import logging
import os
import sys

from stillhouse.errors import UserError

DEBUG = "--debug"
STOPPED = 130


class Ended(Exception):
    """A command that has said all there is to say, and ends with a code."""

    def __init__(self, code: int) -> None:
        self.code = code


def main(arguments: list[str] | None = None) -> None:
    """Run the command, and end with 0, with 2 after a sentence, or with 130 after a stop."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = DEBUG in words
    if debug:
        show_tracebacks()
    try:
        code = run([word for word in words if word != DEBUG])
    except UserError as error:
        if debug:
            raise
        ours = os.environ.get("RANK", "0")  # torchrun's number for this process
        print(f"error{'' if ours == '0' else f' (rank {ours})'}: {error}", file=sys.stderr)
        code = 2
    except Ended as end:
        code = end.code
    except KeyboardInterrupt:
        print("stopped before anything was trained that could be lost", file=sys.stderr)
        code = STOPPED
    except BrokenPipeError:
        # the reader has enough; the interpreter must not try to flush the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def show_tracebacks() -> None:
    """Print the tracebacks of errors that a page only names."""
    logger = logging.getLogger("stillhouse")
    logger.setLevel(logging.DEBUG)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())


def run(words: list[str]) -> int:
    """What the words ask for; the exit code, which words of no meaning make 2."""
    from stillhouse.cli.app import app

    try:
        code = app(args=words, prog_name="stillhouse", standalone_mode=False)
        sys.stdout.flush()  # here a closed pipe can still be met with grace
    except SystemExit:  # so typer answers a pipe that was closed
        return 0
    except Exception as error:
        # typer carries a click of its own, whose errors know how they want to be shown
        show, number = getattr(error, "show", None), getattr(error, "exit_code", None)
        if not callable(show) or not isinstance(number, int):
            raise
        show()
        return number
    if code == STOPPED:  # so typer answers Ctrl-C, without a word
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0
