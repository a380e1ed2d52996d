"""Run the pickle programs of PyTorch checkpoints without calling anything that they name.

A `.pt` or `.bin` file holds a pickle program: whoever wrote it chooses which functions its reader calls. fairseq
checkpoints also name classes of packages that a user of this project does not have. `torch.load(weights_only=True)`
refuses such files as a whole, so the program is interpreted here, the one place of the package that touches pickle:

- tensors become `LazyTensor`: their place in the file, read on demand;
- plain containers are rebuilt;
- every other class becomes an inert `Placeholder`, which keeps the recorded state and has no behavior. No module is
  imported and nothing of the file is called;
- a mention of a module that can act on the machine, or a call of a function, is refused and named.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from .errors import CheckpointError, UnsafeCheckpointError
from .lazy_tensor import LazyTensor, describe_tensor

# Bytes. Known checkpoints need under 1 MB besides the tensor data; a byte of a hostile one can cost 200 in memory.
PROGRAM_LIMIT = 16 * 2**20

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
    "numpy.random._pickle.__bit_generator_ctor datetime.datetime datetime.date datetime.timedelta collections.deque "
    "operator.getitem torch.device".split()
)


@dataclass(frozen=True)
class Global:
    """A name that the program mentions. It is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Placeholder:
    """An object of an unknown class: its recorded arguments, state and items, and no behavior."""

    kind: Global
    args: tuple = ()
    state: Any = None
    items: list = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<placeholder of {self.kind}>"


class BoundedReader:
    """A file whose pickle programs together may not take more than `PROGRAM_LIMIT` bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = PROGRAM_LIMIT

    def read(self, size: int) -> bytes:
        self._spend(size)
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(self._left + 1)
        self._spend(len(line))
        return line

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise CheckpointError(
                f"The checkpoint's pickle takes more than {PROGRAM_LIMIT} bytes: the file is damaged."
            )


def restricted_load(file: BoundedReader, persistent_load: Callable[[Any], Any] | None = None) -> Any:
    """Run one pickle program under the restrictions of this module.

    Args:
        file: positioned at the program; left directly after it.
        persistent_load: makes a `Storage` of torch's description of one; None where no tensor is expected.

    Returns:
        Scalars, containers, `LazyTensor`, `Global` and `Placeholder` objects.

    Raises:
        UnsafeCheckpointError: the program refers to something that could act on the machine.
        CheckpointError: it is damaged.
    """
    damage = (
        *(pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError, OverflowError),
        *(MemoryError, RecursionError, AssertionError, struct.error),
    )
    try:
        return _RestrictedUnpickler(file, persistent_load).load()
    except CheckpointError:
        raise
    except damage as error:
        name = type(error).__name__
        raise CheckpointError(f"The checkpoint's pickle cannot be read ({name}): the file is damaged.") from error


def _refuse_forbidden(kind: Global) -> None:
    parts = str(kind).split(".")
    prefixes = {".".join(parts[: i + 1]) for i in range(len(parts))}
    if prefixes & FORBIDDEN_MODULES or (kind.module == "builtins" and kind.name not in SAFE_BUILTINS):
        known_as = f" (os.{kind.name})" if kind.module in ("posix", "nt") else ""
        raise UnsafeCheckpointError(
            f"The checkpoint's pickle refers to {kind}{known_as}, which could run code on this machine. Nothing was "
            "run and the file is refused; get the checkpoint from a source you trust."
        )


def _call(kind: Any, args: Any) -> Any:
    """The result of a recorded call: a value of this module, a placeholder for a class, or a refusal for a function."""
    if not isinstance(kind, Global):
        raise UnsafeCheckpointError("The checkpoint's pickle calls something that is not a class; the file is refused.")
    if not isinstance(args, tuple):
        raise CheckpointError(f"The checkpoint calls {kind} without an argument tuple: the file is damaged.")
    if str(kind) in CALLS:
        return CALLS[str(kind)](*args)
    is_class = kind.name.rpartition(".")[2].lstrip("_")[:1].isupper()
    is_rebuild = kind.module in ("torch._utils", "torch._tensor") and kind.name.startswith("_rebuild")
    if is_class or is_rebuild or kind.module == "builtins" or str(kind) in INERT_FUNCTIONS:
        return Placeholder(kind, args)
    raise UnsafeCheckpointError(
        f"The checkpoint's pickle calls the function {kind}. It was not run and the file is refused; get the "
        "checkpoint from a source you trust."
    )


def _checked_key(key: Any) -> Hashable:
    """Keys are scalars, classes or flat tuples: hashing a tuple nested a million deep would crash the interpreter."""
    for value in key if isinstance(key, tuple) else (key,):
        if not isinstance(value, (str, bytes, int, float, complex, type(None), Global, Placeholder)):
            raise CheckpointError(f"The checkpoint uses a {type(value).__name__} as a key: the file is damaged.")
    return key


def _ordered_dict(*args: Any) -> OrderedDict:
    pairs = args[0] if args else ()
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    return OrderedDict((_checked_key(key), value) for key, value in pairs)


def _container(make: Callable) -> Callable:
    """`make` of nothing or of one container: `bytearray(10**12)` or `list(range(10**12))` have no way in."""

    def build(*args: Any) -> Any:
        if len(args) > 1 or not all(isinstance(v, (list, tuple, set, frozenset)) for v in args):
            raise CheckpointError(f"The checkpoint builds a {make.__name__} from something that is not a container.")
        return make(_checked_key(value) for value in args[0]) if args else make()

    return build


def _latin1(text: Any, encoding: Any) -> bytes:
    """Protocol 2 writes bytes as text in latin-1."""
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError("The checkpoint encodes bytes in an unknown way.")
    return text.encode("latin1")


def _tensor_v3(storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any) -> Any:
    known = getattr(torch, dtype.name, None) if isinstance(dtype, Global) and dtype.module == "torch" else None
    if not isinstance(known, torch.dtype):
        raise CheckpointError("A tensor of the checkpoint has an unknown dtype.")
    return describe_tensor(storage, offset, shape, stride, known)


CALLS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": lambda *args: describe_tensor(*args[:4]),
    "torch._utils._rebuild_tensor_v2": lambda *args: describe_tensor(*args[:4]),
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.Size": _container(tuple),
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda _factory=None, *args: _ordered_dict(*args),
    "copyreg._reconstructor": lambda kind, *_: _call(kind, ()),
    "copyreg.__newobj__": lambda kind, *args: _call(kind, args),
    "_codecs.encode": _latin1,
    "builtins.dict": _ordered_dict,
    **{f"builtins.{make.__name__}": _container(make) for make in (set, frozenset, list, tuple)},
}


class _RestrictedUnpickler(pickle._Unpickler):  # type: ignore[name-defined]
    """An interpreter of pickle programs in which no opcode can import or call.

    The Python implementation is used, not the C one: its opcodes can be replaced one by one, and a forged memo index
    costs it a dictionary entry where the C one would allocate an array of that size.
    """

    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: BoundedReader, persistent_load: Callable[[Any], Any] | None) -> None:
        super().__init__(file, encoding="latin1")
        self._storage_of = persistent_load

    def persistent_load(self, pid: Any) -> Any:
        if self._storage_of is None:
            raise CheckpointError("The checkpoint refers to tensor data where none is allowed: the file is damaged.")
        return self._storage_of(pid)

    def find_class(self, module: str, name: str) -> Global:
        if self.proto < 3:  # these protocols write the names of Python 2
            renamed = (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), renamed)
        kind = Global(module, name)
        _refuse_forbidden(kind)
        return kind

    def get_extension(self, code: int) -> None:
        raise CheckpointError(f"The checkpoint uses pickle extension {code}, which no checkpoint needs.")

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], args)

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments
        self.load_reduce()

    def load_obj(self) -> None:
        kind, *args = self.pop_mark()
        self.append(_call(kind, tuple(args)))

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        args = tuple(self.pop_mark())
        self.append(_call(self.find_class(module, name), args))

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            target.state = state
        elif not isinstance(target, (OrderedDict, LazyTensor)):  # attributes of a state dict or tensor are not needed
            raise CheckpointError(f"The checkpoint sets the state of a {type(target).__name__}: the file is damaged.")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._store([key, value])

    def load_setitems(self) -> None:
        self._store(self.pop_mark())

    def _store(self, flat: list) -> None:
        target = self.stack[-1]
        pairs = [(_checked_key(key), value) for key, value in zip(flat[::2], flat[1::2], strict=True)]
        if isinstance(target, Placeholder):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update(pairs)
        else:
            raise CheckpointError(f"The checkpoint sets an item of a {type(target).__name__}: the file is damaged.")

    def load_dict(self) -> None:
        flat = self.pop_mark()
        self.append({})
        self._store(flat)

    def load_append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, (list, Placeholder)):
            raise CheckpointError(f"The checkpoint appends to a {type(target).__name__}: the file is damaged.")
        (target.items if isinstance(target, Placeholder) else target).extend(values)

    def load_additems(self) -> None:
        values = self.pop_mark()
        target = self.stack[-1]
        if not isinstance(target, set):
            raise CheckpointError(f"The checkpoint adds to a {type(target).__name__}: the file is damaged.")
        target.update(_checked_key(value) for value in values)

    def load_frozenset(self) -> None:
        values = self.pop_mark()
        self.append(frozenset(_checked_key(value) for value in values))

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))  # the original allocates before it reads

    dispatch.update(
        {
            pickle.REDUCE[0]: load_reduce,
            pickle.NEWOBJ[0]: load_reduce,  # `cls.__new__(cls, *args)`: the same inert object
            pickle.NEWOBJ_EX[0]: load_newobj_ex,
            pickle.OBJ[0]: load_obj,
            pickle.INST[0]: load_inst,
            pickle.BUILD[0]: load_build,
            pickle.SETITEM[0]: load_setitem,
            pickle.SETITEMS[0]: load_setitems,
            pickle.DICT[0]: load_dict,
            pickle.APPEND[0]: load_append,
            pickle.APPENDS[0]: load_appends,
            pickle.ADDITEMS[0]: load_additems,
            pickle.FROZENSET[0]: load_frozenset,
            pickle.BYTEARRAY8[0]: load_bytearray8,
        }
    )
