"""Three processes under gloo, spawned once for all test files that need several ranks.

Such a file has a function `on_each_rank`, which every rank calls, and takes what each of them found
as the fixture `ranks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

RANKS = 3
FILES = {  # and what they are imported as
    "test_ranks": "test_ranks",
    "test_ranks_methods": "test_ranks_methods",
    "test_ranks_multilabel": "test_ranks_multilabel",
    "test_ranks_detection": "test_ranks_detection",
    "test_ranks_semantic": "test_ranks_semantic",
    "test_ranks_instance": "test_ranks_instance",
    "test_ranks_unlabelled": "test_ranks_unlabelled",
    "test_distiller": "test_distiller",
    "test_detection_slice": "slice.test_detection_slice",
}


def spawn(folder: Path, files: Iterable[str]) -> dict[str, list[dict[Any, Any]]]:
    """What each rank found, by file."""
    files = sorted(files)
    mp.spawn(rank_main, (str(folder), files), nprocs=RANKS)
    return {
        file: [torch.load(path_of(folder, file, n), weights_only=True) for n in range(RANKS)]
        for file in files
    }


def rank_main(number: int, folder: str, files: list[str]) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=number, world_size=RANKS)
    for file in files:
        found = import_module(FILES[file]).on_each_rank()
        torch.save(found, path_of(Path(folder), file, number))
    dist.barrier()
    dist.destroy_process_group()


def path_of(folder: Path, file: str, number: int) -> Path:
    return folder / f"{file}-{number}.pt"
