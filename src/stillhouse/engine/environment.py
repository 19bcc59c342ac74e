"""Where a run ran, and with which random numbers."""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.spec import require

PACKAGES = ("stillhouse", "torch", "torchvision", "timm", "accelerate", "numpy")


def describe() -> dict[str, Any]:
    """What one would ask about the place of a run, in plain values; it never fails."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        # without the folder of the program, which says more of a person than of a run
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": devices(),
        "cuda": torch.version.cuda,
    }


def version(package: str) -> str | None:
    """The installed version of a package, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[str]:
    """The names of the accelerators; empty where there are none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(index) for index in range(count)]


def machine() -> str:
    """What a speed was measured on: processor or accelerator, and threads."""
    found = devices()
    if found:
        return found[0]
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def processor() -> str:
    """The name of the processor, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def commit() -> str | None:
    """The git commit of the current folder, with a plus sign if files differ from it."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return head + ("+" if changed else "")


def _git(*words: str) -> str | None:
    # The lock is for `status`, which would otherwise write into a repository that is not ours.
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=False, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and torch; `deterministic` also refuses operations that are not.

    Under `deterministic` torch raises, by name, any operation whose result may differ from run to
    run on the device.
    """
    require(seed >= 0, "seed", "non-negative", seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        # cuBLAS reads it when it is first used, so a value that is set already stands.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)
