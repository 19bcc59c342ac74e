"""The environment of a run, and its random seed."""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.models.factories import factories_are_trusted
from stillhouse.spec import require

PACKAGES = ("stillhouse", "torch", "torchvision", "timm", "accelerate", "numpy")


def describe_environment() -> dict[str, Any]:
    """The environment of a run in plain values: commit, packages, hardware. It never raises."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        # without the folder of the program, which may contain the name of a user
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "trust": factories_are_trusted(),  # in code that the recipe names
        "commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "processor": processor_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": accelerator_names(),
        "cuda": torch.version.cuda,
    }


@cache
def package_version(package: str) -> str | None:
    """The installed version of a package, without importing it; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def accelerator_names() -> list[str]:
    """The names of the GPUs; empty where there are none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(index) for index in range(count)]


def device_name() -> str:
    """The device that a speed was measured on: the GPU, or the processor and its threads."""
    names = accelerator_names()
    if names:
        return names[0]
    threads = torch.get_num_threads()
    return f"{processor_name()}, {threads} thread{'s' if threads > 1 else ''}"


def describe_device(environment: Mapping[str, Any], device: str) -> str:
    """The device that a recorded environment gives for `engine.device`, as `device_name` does.

    Raises KeyError or TypeError for an environment that is not one.
    """
    names = environment["devices"]
    if names and device != "cpu":
        return str(names[0])
    threads = int(environment["threads"])
    return f"{environment['processor']}, {threads} thread{'s' if threads > 1 else ''}"


def processor_name() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def git_commit() -> str | None:
    """The git commit of the current folder, with "+" for uncommitted changes, or None."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return head + ("+" if changed else "")


def _git(*words: str) -> str | None:
    # Without the option `git status` would write into the repository.
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=False, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and torch.

    With `deterministic` torch raises an error for operations without a deterministic implementation
    on the device.
    """
    require(seed >= 0, "seed", "non-negative", seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        # cuBLAS reads it at its first use; a value that is already set is kept.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)
