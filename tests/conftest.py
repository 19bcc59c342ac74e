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
FIRST = (
    "nursery",
    "ranks",
    "tests/test_torchrun.py",
    "tests/study/test_cluster.py",
    "tests/objectives/test_contract.py",
    "tests/runs/test_execute.py",
    "tests/cli/test_cli_run.py",
)


def group_of(nodeid: str) -> str:
    """What one process runs as a whole: a file, or several that share what takes long to make."""
    file = nodeid.partition("::")[0]
    return TOGETHER.get(Path(file).stem, file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    groups = {item: group_of(item.nodeid) for item in items}
    items.sort(key=lambda item: (*FIRST, groups[item]).index(groups[item]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out groups in the order of the tests: with `-n`, whatever `--dist` says."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)


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


@pytest.fixture
def unfilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose weights are only counted are made without drawing them."""
    for name in ("normal_", "uniform_", "erfinv_"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with opened() as made:
        yield made


@pytest.fixture(scope="session")
def every_file_on_ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[Any, Any]]]:
    asked = {item.path.stem for item in request.session.items} & gloo.FILES.keys()
    return gloo.spawn(tmp_path_factory.mktemp("ranks"), asked)


@pytest.fixture(scope="module")
def ranks(
    request: pytest.FixtureRequest, every_file_on_ranks: dict[str, list[dict[Any, Any]]]
) -> list[dict[Any, Any]]:
    """What each of three ranks found by `on_each_rank` of a file."""
    return every_file_on_ranks[request.path.stem]
