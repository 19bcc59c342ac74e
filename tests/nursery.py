"""Processes that tests may kill, forked from one interpreter that has imported everything.

An interpreter of its own for each would import torch for seconds, again and again.
"""

from __future__ import annotations

import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

NOWHERE = Path(os.devnull)


class Nursery:
    """The interpreter that forks."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from nursery import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        self.running: set[int] = set()

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the nursery died"
        return json.loads(answer)

    def start(
        self, words: Sequence[object], out: Path = NOWHERE, env: dict[str, str] | None = None
    ) -> Child:
        """What `python words...` would start: `-m module ...`, `-c code` or `file ...`."""
        said = [str(word) for word in words]
        environment = {**os.environ, **(env or {})}
        pid = self.ask(start=said, out=str(out), env=environment)
        self.running.add(pid)
        return Child(self, pid)

    def close(self) -> None:
        """End the interpreter; children that are left belong to tests that failed."""
        self.process.kill()
        self.process.wait()
        for pid in self.running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Child:
    """A forked process, asked like one of `subprocess`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.nursery, self.pid = nursery, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """None while it runs; then its exit code, negative for a signal."""
        return self._ask(block=False)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        code = self._ask(block=True)
        assert code is not None
        return code

    def _ask(self, block: bool) -> int | None:
        if self.returncode is None:
            self.returncode = self.nursery.ask(wait=self.pid, block=block)
            if self.returncode is not None:
                self.nursery.running.discard(self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


@contextmanager
def opened() -> Iterator[Nursery]:
    nursery = Nursery()
    try:
        yield nursery
    finally:
        nursery.close()


# ------------------------------------------------------------------------------- in the interpreter


def serve() -> None:
    """Fork on request, until nobody asks any more."""
    import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer: int | None = os.fork()
            if answer == 0:
                become(request["start"], request["out"], request["env"])
        else:
            pid, status = os.waitpid(request["wait"], 0 if request["block"] else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


def import_everything() -> None:
    """What a run imports sooner or later; nothing is computed, so that no thread is started."""
    import stillhouse

    for module in pkgutil.walk_packages(stillhouse.__path__, "stillhouse."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in ("torch._dynamo", "sklearn.datasets", "torch.utils.tensorboard"):
        import_module(name)


def become(words: list[str], out: str, env: dict[str, str]) -> None:
    """Run a module or a file in this process, and end it."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.environ.clear()
        os.environ.update(env)
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            exec(words[1], {"__name__": "__main__"})
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
