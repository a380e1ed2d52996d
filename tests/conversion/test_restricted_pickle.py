"""The reader of untrusted checkpoints: what it reads, what it refuses, and that nothing is ever run."""

from __future__ import annotations

import collections
import datetime
import io
import os
import pathlib
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch

from mert_hf.conversion import CheckpointError, UnsafeCheckpointError
from mert_hf.conversion.checkpoint_file import open_checkpoint, state_dict_of
from mert_hf.conversion.lazy_tensor import LazyTensor, Storage, describe_tensor
from mert_hf.conversion.restricted_pickle import PROGRAM_LIMIT, BoundedReader, Placeholder, restricted_load

from .conftest import foreign_class


def load(program: bytes):
    return restricted_load(BoundedReader(io.BytesIO(program)))


def archive(path, program: bytes, **members: bytes):
    """A torch archive with a pickle program of one's own."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        for name, data in members.items():
            file.writestr(f"archive/data/{name.removeprefix('storage')}", data)
    return path


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


TENSORS = {
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
    "sliced": torch.arange(10)[2:7:2],
    "half": torch.tensor([1.5, -2.0]).half(),
    "brain": torch.tensor([1.5, -2.0]).bfloat16(),
    "flags": torch.tensor([True, False]),
    "bytes": torch.tensor([1, 255], dtype=torch.uint8),
    "complex": torch.tensor([1 + 2j]),
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(3.5),
    "parameter": torch.nn.Parameter(torch.arange(3.0)),
}


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read(zipped, tmp_path):
    shared = torch.arange(20.0)
    state = collections.OrderedDict(TENSORS, head=shared[:5], tail=shared[5:])
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with open_checkpoint(tmp_path / "a.pt") as content:
        tensors = state_dict_of(content)
        assert {name: tensor.shape for name, tensor in tensors.items()} == {n: tuple(t.shape) for n, t in state.items()}
        for name, expected in state.items():
            loaded = tensors[name].load()
            assert loaded.dtype == expected.dtype and torch.equal(loaded, expected.detach()), name
            assert loaded.is_contiguous() and loaded.untyped_storage().nbytes() == loaded.nbytes


def test_module_state_dict_and_nesting(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save({"model": module.state_dict(), "epoch": 3, "set": {1, 2}, "size": torch.Size([2, 3])}, tmp_path / "a.pt")
    with open_checkpoint(tmp_path / "a.pt") as content:
        assert (content["epoch"], content["set"], content["size"]) == (3, {1, 2}, (2, 3))
        assert torch.equal(state_dict_of(content)["0.weight"].load(), module[0].weight)


def test_values_without_use_are_noted(tmp_path):
    noted = {
        "rng": np.random.RandomState(0),
        "array": np.arange(3),
        "day": datetime.date(2026, 1, 2),
        "number": np.int64(3),
    }
    noted |= {"place": pathlib.PurePosixPath("a/b"), "last": collections.deque([1]), "device": torch.device("cpu")}
    torch.save(noted, tmp_path / "a.pt")
    with open_checkpoint(tmp_path / "a.pt") as content:
        assert all(isinstance(value, Placeholder) for value in content.values())


def test_optimizer_state_is_read_lazily(tmp_path):
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    torch.save({"optimizer": optimizer.state_dict(), "loss": np.float64(1.5)}, tmp_path / "a.pt")
    with open_checkpoint(tmp_path / "a.pt") as content:
        moment = content["optimizer"]["state"][0]["exp_avg"]
        assert isinstance(moment, LazyTensor)
        assert torch.allclose(moment.load(), torch.full((4,), 0.1))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_unknown_classes_become_inert_placeholders(protocol):
    with foreign_class("fairseq.data.dictionary", "Dictionary") as kind:
        kind.__init__ = lambda self: pytest.fail("the class was called")
        kind.__setstate__ = lambda self, state: pytest.fail("the state was set")
        thing = kind.__new__(kind)
        thing.symbols = ["<s>", 1]
        program = pickle.dumps([thing, {"again": thing}], protocol=protocol)
        placeholder, again = load(program)
    assert isinstance(placeholder, Placeholder) and again["again"] is placeholder
    assert (str(placeholder.kind), placeholder.state) == ("fairseq.data.dictionary.Dictionary", {"symbols": ["<s>", 1]})
    assert repr(placeholder) == "<placeholder of fairseq.data.dictionary.Dictionary>"


def test_plain_values_survive():
    value = {
        "text": "ä", "bytes": b"\x00\xff", "int": 2**80, "float": -1.5, "none": None, "tuple": (1, (2,)),
        "ordered": collections.OrderedDict(a=1), "default": collections.defaultdict(list, b=2), ("key", 1): [True],
        "frozen": frozenset({3}), "array": bytearray(b"abc"),
    }  # fmt: skip
    for protocol in (2, 4, 5):
        loaded = load(pickle.dumps(value, protocol=protocol))
        if protocol < 5:  # older protocols write a call that is not made
            assert isinstance(loaded.pop("array"), Placeholder)
        assert loaded == {key: value[key] for key in loaded} and len(loaded) >= 10


HOSTILE = [
    (os.system, r"posix.system \(os.system\)"),
    (eval, "eval"),
    (exec, "exec"),
    (__import__, "__import__"),
    (getattr, "getattr"),
    (open, "open"),
    (__import__("subprocess").Popen, "subprocess.Popen"),
    (__import__("shutil").rmtree, "shutil.rmtree"),
    (__import__("importlib").import_module, "importlib.import_module"),
    (__import__("runpy").run_path, "runpy._runmodule|runpy.run_path"),
    (torch.hub.load, "torch.hub.load"),
    (torch.load, "torch.serialization.load"),
    (pickle.loads, "pickle.loads"),
    (np.save, "numpy.*save"),
    (np.fromfile, "numpy.*fromfile"),
    (__import__("operator").attrgetter("__class__").__class__, "operator.attrgetter"),
    (__import__("functools").partial, "functools.partial"),
    (__import__("webbrowser").open, "webbrowser.open"),
    (os.path.join, "posixpath.join"),
]


@pytest.mark.parametrize(("function", "name"), HOSTILE, ids=[name for _, name in HOSTILE])
def test_calls_are_refused_and_named(function, name, tmp_path):
    target = tmp_path / "touched"
    torch.save({"model": Calls(function, f"touch {target}")}, tmp_path / "a.pt")
    with pytest.raises(UnsafeCheckpointError, match=name), open_checkpoint(tmp_path / "a.pt"):
        pass
    assert not target.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch %s'\ntR.",  # REDUCE
        b"(S'touch %s'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch %s'\no.",  # OBJ
        b"\x80\x02cposix\nsystem\nU\x05touch\x85\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05touch\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x08builtins\x8c\x0dobject.system\x93.",  # a dotted name
        b"\x80\x02c__builtin__\neval\nU\x011\x85R.",
        b"\x80\x02ctorch.storage\n_load_from_bytes\nU\x01.\x85R.",
        b"\x80\x02cos\nsystem\n.",  # never called
    ],
)
def test_every_way_to_name_a_function_is_refused(program, tmp_path):
    target = tmp_path / "touched"
    with pytest.raises(UnsafeCheckpointError, match=r"system|eval|_load_from_bytes"):
        load(program.replace(b"%s", str(target).encode()))
    assert not target.exists()


def test_functions_of_unknown_modules_are_refused_and_their_modules_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evilmodule.py").write_text(
        f"open({str(tmp_path / 'touched')!r}, 'w')\ndef run(): pass\nclass Thing: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsafeCheckpointError, match=r"calls the function evilmodule\.run"):
        load(b"\x80\x02cevilmodule\nrun\n)R.")
    assert str(load(b"\x80\x02cevilmodule\nThing\n)R.").kind) == "evilmodule.Thing"
    assert not (tmp_path / "touched").exists()


def test_results_of_placeholders_are_not_called():
    with pytest.raises(UnsafeCheckpointError, match="calls something that is not a class"):
        load(b"\x80\x02ca.b\nThing\n)R)R.")


DAMAGED = {
    "nothing": b"",
    "no end": b"\x80\x02]q\x00",
    "empty stack": b"\x80\x02R.",
    "unknown opcode": b"\x80\x02\xff.",
    "unknown protocol": b"\x80\x63.",
    "memo that is not there": b"\x80\x02h\x05.",
    "extension": b"\x80\x02\x82\x01.",
    "tensor data": b"\x80\x02U\x01aQ.",
    "list as key": b"\x80\x02}]K\x01s.",
    "item of a list": b"\x80\x02]K\x01K\x02s.",
    "append to a number": b"\x80\x02K\x01K\x02a.",
    "state of a list": b"\x80\x02]}b.",
    "set of lists": b"\x80\x04\x8f(]\x90.",
    "no argument tuple": b"\x80\x02ca.b\nThing\nK\x01R.",
    "list of a range": b"\x80\x02c__builtin__\nlist\nc__builtin__\nrange\nK\x05\x85R\x85R.",
    "wrong tensor": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR.",
    "wrong arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "odd items": b"\x80\x02}(K\x01u.",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.",
    "huge frame": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b".",
    "key nested without end": b"\x80\x02}K\x01" + b"\x85" * 200_000 + b"K\x01s.",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_programs_are_one_clear_error(name):
    with pytest.raises(CheckpointError, match=r"damaged|extension|not a container|key|calls"):
        load(DAMAGED[name])


def test_a_forged_memo_index_costs_nothing():
    assert load(b"\x80\x02]r\xff\xff\xff\xff.") == []


def test_a_program_beyond_the_limit_is_refused():
    with pytest.raises(CheckpointError, match="takes more than"):
        load(b"\x80\x02X" + struct.pack("<I", PROGRAM_LIMIT) + b"a" * PROGRAM_LIMIT + b".")


def test_random_damage_never_gets_through_as_another_error(tmp_path):
    """Whatever is done to a file, it is read or refused; no other exception, no hang."""
    rng = random.Random(0)
    state = {
        "model": collections.OrderedDict(a=torch.arange(3.0), b=torch.zeros(2, 2)),
        "epoch": 1,
        "x": {"y": (1, "z")},
    }
    for zipped in (True, False):
        torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        raw = (tmp_path / "a.pt").read_bytes()
        for _ in range(150):
            damaged = bytearray(raw)
            for _ in range(rng.randint(1, 8)):
                damaged[rng.randrange(len(raw))] = rng.randrange(256)
            (tmp_path / "b.pt").write_bytes(damaged[: rng.choice([len(raw), len(raw), rng.randrange(len(raw))])])
            try:
                with open_checkpoint(tmp_path / "b.pt") as content:
                    for tensor in state_dict_of(content).values():
                        tensor.load()
            except CheckpointError:
                pass


@pytest.mark.parametrize("size", [0, 1, 10, 5000])
def test_other_files_are_refused(size, tmp_path):
    (tmp_path / "a.pt").write_bytes(random.Random(size).randbytes(size))
    with pytest.raises(CheckpointError, match=r"a\.pt"), open_checkpoint(tmp_path / "a.pt"):
        pass
    pickle.dump({"a": 1}, (tmp_path / "b.pt").open("wb"))
    with pytest.raises(CheckpointError, match="not one of torch.save|damaged"), open_checkpoint(tmp_path / "b.pt"):
        pass


def test_other_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match=r"no data\.pkl"), open_checkpoint(tmp_path / "a.zip"):
        pass
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("b/data.pkl", b"\x80\x02N." + b"\0" * 10**6)
    with pytest.raises(CheckpointError, match="compressed or encrypted"), open_checkpoint(tmp_path / "b.pt"):
        pass
    torch.save({}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "d.pt", "w") as file:
        file.writestr("d/data.pkl", b"\x80\x02N.")
        file.writestr("d/byteorder", b"big")
    with pytest.raises(CheckpointError, match="big-endian"), open_checkpoint(tmp_path / "d.pt"):
        pass


PERSISTENT = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK%ctQ"


def tensor_program(count: int, offset: bytes, shape: bytes, stride: bytes) -> bytes:
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK" + bytes([count]) + b"tQ"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89NtR."


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tensor_program(4, b"K\x00", b"K\x02K\x02\x86", b"K\x02K\x01\x86"), None),
        (tensor_program(4, b"K\x01", b"K\x02K\x02\x86", b"K\x02K\x01\x86"), "does not fit in its storage of 4"),
        (tensor_program(4, b"K\x00", b"J\x00\x00\x00\x7f\x85", b"K\x00\x85"), "does not fit in its storage of 4"),
        (tensor_program(4, b"J\xff\xff\xff\xff", b"K\x02\x85", b"K\x01\x85"), "described wrongly"),
        (tensor_program(4, b"K\x00", b"K\x02\x85", b"K\x02K\x01\x86"), "has shape"),
        (tensor_program(9, b"K\x00", b"K\x02\x85", b"K\x01\x85"), "missing or too short"),
    ],
)
def test_tensors_stay_within_their_storage(program, message, tmp_path):
    archive(tmp_path / "a.pt", program, storage0=np.arange(4, dtype="<f4").tobytes())
    if message is None:
        with open_checkpoint(tmp_path / "a.pt") as tensor:
            assert torch.equal(tensor.load(), torch.arange(4.0).reshape(2, 2))
    else:
        with pytest.raises(CheckpointError, match=message), open_checkpoint(tmp_path / "a.pt"):
            pass


def test_a_file_that_shrinks_is_noticed():
    storage = Storage("0", torch.float32, 16, lambda start, length: b"\0" * 4)
    with pytest.raises(CheckpointError, match="ends inside tensor storage '0'"):
        describe_tensor(storage, 0, (4,), (1,)).load()


def test_state_dict_of_other_things():
    with pytest.raises(CheckpointError, match="holds no state dict, neither bare nor under one of model"):
        state_dict_of([1, 2])
