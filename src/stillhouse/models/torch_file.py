"""Files of torch.save, read without running code and without growing in memory."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from stillhouse.files import open_regular

_ZIP = b"PK\x03\x04"  # the first bytes of a file that torch takes for an archive


def load_torch_file(path: Path) -> Any:
    """The tensors and plain values in a file, on the CPU.

    Raises ValueError for an archive that is larger than its file, and whatever torch.load raises.
    """
    check_archive(path)
    with warnings.catch_warnings():  # about unknown pickles, which torch then refuses
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


def check_archive(path: Path) -> None:
    """Raise ValueError for an archive whose entries would take more memory than it has bytes."""
    with open_regular(path) as file:
        if file.read(len(_ZIP)) != _ZIP:
            return  # the older format, whose tensors follow each other as they are
        size = file.seek(0, 2)
        try:
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(str(error)) from error
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > size:
        raise ValueError("its entries are compressed, which those of torch.save are not")
