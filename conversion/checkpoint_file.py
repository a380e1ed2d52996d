"""Read PyTorch checkpoints of unknown origin: their tensors and plain values, without running anything in them.

A `.pt` or `.bin` file holds a pickle program, and whoever wrote it chooses which functions its reader calls. fairseq
checkpoints also name classes of packages that a user of this project does not have. They are read by torch's own
restricted loader, `torch.load(weights_only=True)`, which calls nothing but its short list of tensor functions and what
it is given. It is given an inert class in place of every other name in the file, so that no module is imported:

- tensors are mapped from the file, and read when their values are used;
- plain containers are rebuilt;
- every other class becomes a `Placeholder`, which keeps the recorded arguments and state and has no behavior;
- a mention of a module that can act on the machine, or a call of a function, is refused and named.
"""

from __future__ import annotations

import _compat_pickle
import io
import os
import pickletools
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from packaging.version import Version

from ..utils.text import shorten

# Known checkpoints need under 1 MB besides the tensor data; a byte of a hostile one can cost 200 in memory.
PROGRAM_LIMIT = 16 * 2**20
TUPLE_LIMIT = 30_000  # hashing more of them, nested, can exhaust the interpreter's stack; a 330M model has 6,000
SAFE_TORCH = (2, 6)
PROTOCOL = 2  # the default of torch.save, and all that its restricted loader knows

# A mere mention of these is refused: no checkpoint has a use for them, and a reader that looked them up is in danger.
FORBIDDEN_MODULES = frozenset(
    "os posix nt posixpath ntpath subprocess _posixsubprocess sys shutil importlib _frozen_importlib imp runpy socket "
    "_socket ctypes _ctypes cffi pickle _pickle cPickle dill cloudpickle joblib marshal shelve code codeop commands "
    "popen2 pty platform webbrowser timeit cProfile profile pdb bdb trace doctest asyncio multiprocessing concurrent "
    "threading _thread signal http httplib urllib urllib2 requests aiohttp ftplib smtplib telnetlib ssl select "
    "tempfile io _io glob fileinput inspect gc types zipimport pkgutil pip setuptools distutils ensurepip venv site "
    "atexit sqlite3 torch.hub torch.load torch.serialization torch.jit torch.package torch.distributed "
    "torch.multiprocessing torch.storage._load_from_bytes torch.utils.cpp_extension numpy.f2py numpy.distutils "
    "numpy.testing".split()
)
SAFE_BUILTINS = frozenset(
    "set frozenset list dict tuple object int float bool str bytes bytearray complex slice range".split()
)
# What genuine checkpoints call in addition to classes in capitals: their values are not needed, so nothing is called.
INERT_FUNCTIONS = frozenset(
    "numpy.dtype numpy.ndarray numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct "
    "numpy._core.multiarray.scalar numpy._core.multiarray._reconstruct numpy.core.numeric._frombuffer "
    "numpy._core.numeric._frombuffer numpy.random._pickle.__randomstate_ctor numpy.random._pickle.__generator_ctor "
    "numpy.random._pickle.__bit_generator_ctor datetime.datetime datetime.date datetime.timedelta "
    "operator.getitem copyreg._reconstructor".split()
)
CONTAINERS = {"collections.defaultdict": dict, "collections.deque": list}  # empty ones, which the program fills


class Placeholder:
    """An object of a class that is never looked up: its recorded arguments and state, and no behavior."""

    kind = ""  # the name in the file, such as fairseq.data.dictionary.Dictionary
    args: tuple = ()
    state: Any = None

    def __new__(cls, *args: Any) -> Any:
        module, _, name = cls.kind.rpartition(".")
        if cls.kind in CONTAINERS:
            return CONTAINERS[cls.kind]()
        if not (name.lstrip("_")[:1].isupper() or module == "builtins" or cls.kind in INERT_FUNCTIONS):
            raise UnsafeCheckpointError(
                f"The checkpoint's pickle calls the function {cls.kind}. It was not run and the file is refused; get "
                "the checkpoint from a source you trust."
            )
        made = super().__new__(cls)
        made.args = args
        return made

    def __init__(self, *args: Any) -> None:
        """`args` are kept by `__new__`."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<placeholder of {self.kind}>"


def read_checkpoint(path: str | os.PathLike) -> Any:
    """The object in a file written by `torch.save`; nothing in it is run.

    Args:
        path: a `.pt`, `.bin` or `.th` file, of torch >= 1.6 or older.

    Returns:
        Tensors on the CPU, scalars, containers and `Placeholder` objects. The tensors of a file of torch >= 1.6 are
        mapped from it: it must not be changed while they are in use.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeCheckpointError: its pickle refers to something that could act on the machine.
        CheckpointError: it is truncated, damaged, or not a torch file.
    """
    path = Path(path)
    if Version(torch.__version__).release < SAFE_TORCH:
        raise CheckpointError(
            f"{path}: the restricted loader of torch {torch.__version__} can be made to run code (CVE-2025-32434). "
            "Install torch >= 2.6 to read checkpoints in this format."
        )
    with path.open("rb") as file:
        start = file.read(4)
        is_zip = start == b"PK\x03\x04"
        file.seek(0)
        try:
            if not is_zip and start[:1] != b"\x80":
                raise CheckpointError("This is not a file of torch.save; .pt, .bin or .th files are expected.")
            if is_zip:
                names = _names_in_archive(file)
            else:  # of torch < 1.6: magic number, protocol, machine, object and storage keys are a pickle each
                names = set().union(*(_names_in_program(file) for _ in range(5)))
            with _allowed(_stand_in(*name) for name in sorted(names)):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)  # noqa: TID251
        except CheckpointError as error:
            raise type(error)(f"{path}: {error}") from error.__cause__
        except Exception as error:  # whatever zipfile, pickletools and torch raise on damaged data
            unpickling = type(error).__name__ == "UnpicklingError"  # its text advises to load without restrictions
            reason = "its pickle cannot be read" if unpickling else error
            raise CheckpointError(f"{path} is truncated or damaged ({reason}); download or copy it again.") from error


def state_dict_of(
    content: Any, *, keys: tuple[str, ...] = ("model", "state_dict", "best_state")
) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, saved bare or under one of `keys`.

    Raises:
        CheckpointError: there is no state dict, or one of its values is not a plain tensor within its storage.
    """
    if isinstance(content, dict):
        nested = next((content[key] for key in keys if isinstance(content.get(key), dict)), content)
        other = [name for name, value in nested.items() if not isinstance(name, str) or not _is_plain(value)]
        if other and len(other) < len(nested):
            raise CheckpointError(f"Entry {str(other[0])[:100]!r} of the state dict is not a plain tensor.")
        if nested and not other:
            return {name: tensor.detach() for name, tensor in nested.items()}
    raise CheckpointError(f"The file holds no state dict, neither bare nor under one of {', '.join(keys)}.")


def _is_plain(value: Any) -> bool:
    """Whether a value is a dense tensor that has no more elements than it has memory (stride 0 could claim any)."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
        return False
    return not value.is_quantized and value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _names_in_archive(file: BinaryIO) -> set[tuple[str, str]]:
    """The names that the pickle of a zip archive mentions, after the check of every part's checksum."""
    with zipfile.ZipFile(file) as archive:
        programs = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise CheckpointError("This zip archive was not written by torch.save: it has no data.pkl.")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise CheckpointError("The archive is compressed or encrypted, which torch.save never does: it is refused.")
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"bad CRC-32 of {damaged}")
        return _names_in_program(io.BytesIO(archive.read(programs[0])))


def _names_in_program(file: BinaryIO) -> set[tuple[str, str]]:
    """(module, name) of everything that a pickle program mentions; it is read, not run."""
    names, tuples = set(), 0
    for opcode, argument, position in pickletools.genops(file):
        tuples += opcode.name.startswith("TUPLE")
        if (position or 0) > PROGRAM_LIMIT or tuples > TUPLE_LIMIT:
            raise CheckpointError(
                f"The checkpoint's pickle takes more than {PROGRAM_LIMIT} bytes or {TUPLE_LIMIT} tuples: the file is "
                "damaged."
            )
        if opcode.name == "PROTO" and argument > PROTOCOL:
            raise CheckpointError(
                f"The checkpoint was written with pickle protocol {argument}; save it again with the default of "
                f"torch.save, {PROTOCOL}."
            )
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = argument.partition(" ")
            renamed = (_compat_pickle.IMPORT_MAPPING.get(module, module), name)  # of Python 2
            names.add(_compat_pickle.NAME_MAPPING.get((module, name), renamed))
    return names


def _stand_in(module: str, name: str) -> type[Placeholder]:
    """An inert class that torch's loader takes for the one of this name."""
    kind = f"{module}.{name}"
    parts = kind.split(".")
    prefixes = {".".join(parts[: index + 1]) for index in range(len(parts))}
    if prefixes & FORBIDDEN_MODULES or (module == "builtins" and name not in SAFE_BUILTINS):
        known_as = f" (os.{name})" if module in ("posix", "nt") else ""
        raise UnsafeCheckpointError(
            f"The checkpoint's pickle refers to {kind}{known_as}, which could run code on this machine. Nothing was "
            "run and the file is refused; get the checkpoint from a source you trust."
        )
    return type(name, (Placeholder,), {"__module__": module, "__qualname__": name, "kind": kind})


@contextmanager
def _allowed(classes: Iterable[type]) -> Iterator[None]:
    """Within it, torch's restricted loader knows these classes; torch 2.4 has no `safe_globals`."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(list(classes))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


LISTED = 5  # names of each kind of fault


class CheckpointError(ValueError):
    """A checkpoint file that is damaged, of an unknown format, or does not hold what it should."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint whose pickle refers to something that could act on the machine. Nothing of it was run."""


def compare_shapes(
    tensors: Mapping[str, Any], expected: Mapping[str, Any], origin: str = "the configuration"
) -> dict[str, list[str]]:
    """Names of tensors (anything with a `shape`) that do not fit the expected ones of `origin`, by kind of fault."""
    shapes = {name: (tuple(tensors[name].shape), tuple(expected[name].shape)) for name in expected if name in tensors}
    return {
        "missing": [name for name in expected if name not in tensors],
        "unknown": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} {stored}, by {origin} {right}" for name, (stored, right) in shapes.items() if stored != right
        ],
    }


def describe_faults(faults: Mapping[str, Sequence[str]]) -> str:
    """Sentences about tensors that do not fit, from the names of each kind of fault; empty where there is none."""
    return " ".join(f"{len(names)} {kind}: {shorten(names, LISTED, '; ')}." for kind, names in faults.items() if names)
