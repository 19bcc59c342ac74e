"""What every test starts from: one thread, one seed, a cache of its own."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, too

import pytest
import torch

torch.set_num_threads(1)  # two threads on two busy cores wait for each other


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and teachers made by tests stay out of the user's cache, and are shared by all tests."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["STILLHOUSE_CACHE"] = str(folder)
    return folder
