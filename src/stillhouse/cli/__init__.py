"""The command: parse, load, call. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import os
import sys

from stillhouse.errors import UserError

DEBUG = "--debug"


def main(arguments: list[str] | None = None) -> None:
    """Run the command, and end with 0, with 2 after a sentence, or with 130 after a stop."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = DEBUG in words
    try:
        code = run([word for word in words if word != DEBUG])
    except UserError as error:
        if debug:
            raise
        ours = os.environ.get("RANK", "0")  # torchrun's number for this process
        print(f"error{'' if ours == '0' else f' (rank {ours})'}: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # the reader has enough; the interpreter must not try to flush the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def run(words: list[str]) -> int:
    """What the words ask for; the exit code, which words of no meaning make 2."""
    from stillhouse.cli.app import app

    try:
        app(args=words, prog_name="stillhouse")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
