"""Open PyTorch checkpoints of unknown origin: their structure at once, their tensors one at a time.

Formats: the zip archive of torch >= 1.6 and the older stream of pickles; layouts as in torch/serialization.py.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .errors import CheckpointError
from .lazy_tensor import LazyTensor, Storage
from .restricted_pickle import BoundedReader, Global, restricted_load

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
LEGACY_PROTOCOL = 1001

STORAGE_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "UntypedStorage": torch.uint8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


@contextmanager
def open_checkpoint(path: str | os.PathLike) -> Iterator[Any]:
    """Open a file written by `torch.save`; nothing in it is run (see `restricted_pickle`).

    Args:
        path: a `.pt`, `.bin` or `.th` file.

    Yields:
        The saved object, with a `LazyTensor` for each tensor; they can be loaded while the context is open.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeCheckpointError: its pickle refers to something that could act on the machine.
        CheckpointError: it is truncated, damaged, or not a torch file.
    """
    path = Path(path)
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        with _damage_named(path):
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content = _read_archive(stack.enter_context(zipfile.ZipFile(file)), path) if is_zip else _read_legacy(file)
        yield content


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Within it, every error of zipfile about a damaged archive becomes one error that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error.__cause__
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        ValueError,
        LookupError,
        RuntimeError,
        OSError,
    ) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); download or copy it again.") from error


def state_dict_of(
    content: Any, *, keys: tuple[str, ...] = ("model", "state_dict", "best_state")
) -> dict[str, LazyTensor]:
    """The tensors of a state dict, saved bare or under one of `keys`.

    Raises:
        CheckpointError: there is no state dict, or one of its values is no tensor.
    """
    if isinstance(content, dict):
        nested = next((content[key] for key in keys if isinstance(content.get(key), dict)), content)
        tensors = {str(name): value for name, value in nested.items() if isinstance(value, LazyTensor)}
        if tensors and len(tensors) == len(nested):
            return tensors
        if tensors:
            other = next(name for name, value in nested.items() if not isinstance(value, LazyTensor))
            raise CheckpointError(f"Entry {other!r} of the state dict is not a plain tensor.")
    raise CheckpointError(f"The file holds no state dict, neither bare nor under one of {', '.join(keys)}.")


def _storage_info(pid: Any) -> tuple[str, torch.dtype, int]:
    """(key, dtype, bytes) of `("storage", type, key, location, elements, ...)`."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Global):
        raise CheckpointError("The checkpoint describes a tensor storage in an unknown way: the file is damaged.")
    _, kind, key, _, count = pid[:5]
    dtype = STORAGE_DTYPES.get(kind.name)
    if dtype is None or not isinstance(key, str) or type(count) is not int or not 0 <= count < 2**48:
        raise CheckpointError(f"The checkpoint holds a storage of the unknown kind {kind}, key or size.")
    return key, dtype, count * dtype.itemsize


def _read_archive(archive: zipfile.ZipFile, path: Path) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    root = _checked_root(archive, members)

    def storage_of(pid: Any) -> Storage:
        key, dtype, num_bytes = _storage_info(pid)
        info = members.get(f"{root}data/{key}")
        if info is None or info.file_size < num_bytes:
            raise CheckpointError(f"Tensor storage {key!r} is missing or too short: the file is damaged.")

        def read(start: int, length: int) -> bytes:
            with _damage_named(path):
                if start == 0 and length == info.file_size:
                    return archive.read(info)  # checks the checksum
                with archive.open(info) as member:
                    member.seek(start)
                    return member.read(length)

        return Storage(key, dtype, num_bytes, read)

    with archive.open(f"{root}data.pkl") as program:
        return restricted_load(BoundedReader(program), storage_of)


def _checked_root(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> str:
    """The folder of data.pkl in an archive as torch.save writes it, with a slash at the end."""
    programs = [name for name in members if name.endswith("/data.pkl")]
    if len(programs) != 1:
        raise CheckpointError("This zip archive was not written by torch.save: it has no data.pkl.")
    root = programs[0].removesuffix("data.pkl")
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in members.values()):
        raise CheckpointError("The archive is compressed or encrypted, which torch.save never does: it is refused.")
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder").strip() != b"little":
        raise CheckpointError(
            "The checkpoint was written on a big-endian machine; save it again on a little-endian one."
        )
    return root


@dataclass
class _LegacyStorage:
    """A storage of the older format. Where it begins is known only after the pickle programs are read."""

    file: BinaryIO
    itemsize: int
    num_bytes: int
    start: int | None = None

    def read(self, start: int, length: int) -> bytes:
        if self.start is None:
            raise CheckpointError("A tensor of the checkpoint has no data: the file is damaged.")
        self.file.seek(self.start + start)
        return self.file.read(length)


def _read_legacy(file: BinaryIO) -> Any:
    """Five programs: magic number, protocol, machine, object, list of storage keys; then the storages, one by one."""
    reader = BoundedReader(file)
    if file.peek(2)[:1] != b"\x80":  # type: ignore[attr-defined]
        raise CheckpointError("This is not a file of torch.save; .pt, .bin or .th files are expected.")
    magic, protocol, machine = (restricted_load(reader) for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or not isinstance(machine, dict):
        raise CheckpointError("This is a pickle, but not one of torch.save; .pt, .bin or .th files are expected.")
    if machine.get("little_endian") is not True:
        raise CheckpointError(
            "The checkpoint was written on a big-endian machine; save it again on a little-endian one."
        )
    places: dict[str, _LegacyStorage] = {}

    def storage_of(pid: Any) -> Storage:
        key, dtype, num_bytes = _storage_info(pid)
        if len(pid) > 5 and pid[5] is not None:
            raise CheckpointError("The checkpoint uses storage views of torch < 0.4; save it again with a newer torch.")
        place = places.setdefault(key, _LegacyStorage(file, dtype.itemsize, num_bytes))
        if (place.itemsize, place.num_bytes) != (dtype.itemsize, num_bytes):
            raise CheckpointError(f"Tensor storage {key!r} is described twice and differently: the file is damaged.")
        return Storage(key, dtype, num_bytes, place.read)

    content = restricted_load(reader, storage_of)
    _locate_storages(file, restricted_load(reader), places)
    return content


def _locate_storages(file: BinaryIO, keys: Any, places: dict[str, _LegacyStorage]) -> None:
    """Each storage is its number of elements (int64) and its data."""
    if not isinstance(keys, list) or set(map(str, keys)) != set(places):
        raise CheckpointError("The list of storages does not fit the tensors: the file is truncated or damaged.")
    position = file.tell()
    end = file.seek(0, os.SEEK_END)
    for key in keys:
        place = places[key]
        file.seek(position)
        place.start = position + 8
        position = place.start + place.num_bytes
        header = file.read(8)
        if len(header) < 8 or struct.unpack("<q", header)[0] * place.itemsize != place.num_bytes or position > end:
            raise CheckpointError(f"Tensor storage {key!r} is missing or too short: the file is truncated or damaged.")
