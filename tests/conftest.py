"""What every test starts from: one thread, one seed, a cache of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, too

import pytest
import torch

import gloo
from nursery import Nursery, opened

torch.set_num_threads(1)  # two threads on two busy cores wait for each other


# What is made once for several files, and what takes long and so begins first.
TOGETHER = dict.fromkeys(gloo.FILES, "ranks") | dict.fromkeys(("test_jobs", "test_kill"), "nursery")
FIRST = ("nursery", "ranks", "objectives/test_contract", "runs/test_execute", "cli/test_cli_run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs a file, or the files that share what takes long to make."""
    order = {}
    for item in items:
        place = item.path.relative_to(Path(__file__).parent).with_suffix("").as_posix()
        group = TOGETHER.get(item.path.stem, place)
        item.add_marker(pytest.mark.xdist_group(group))  # read by `--dist loadgroup`
        order[item] = FIRST.index(group) if group in FIRST else len(FIRST)
    items.sort(key=order.__getitem__)


@pytest.fixture(autouse=True)
def seed() -> None:
    # torch.manual_seed also notes a stack trace for GPUs that are not in use, in a millisecond
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and teachers made by tests stay out of the user's cache, and are shared by all tests."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["STILLHOUSE_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def volatile() -> Iterator[None]:
    """What tests write need not survive a power cut, and waits for no disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def short_tsne() -> Iterator[None]:
    """As few iterations as t-SNE allows: they are half of what a run with its page takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stillhouse.explain.embedding.ITERATIONS", 250)
        yield


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with opened() as made:
        yield made


@pytest.fixture(scope="session")
def every_file_on_ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[Any, Any]]]:
    asked = {item.path.stem for item in request.session.items} & set(gloo.FILES)
    return gloo.spawn(tmp_path_factory.mktemp("ranks"), asked)


@pytest.fixture(scope="module")
def ranks(
    request: pytest.FixtureRequest, every_file_on_ranks: dict[str, list[dict[Any, Any]]]
) -> list[dict[Any, Any]]:
    """What each of three ranks found by `on_each_rank` of a file."""
    return every_file_on_ranks[request.path.stem]
