"""The reader of untrusted checkpoints: what it reads, what it refuses, and that nothing is ever run."""

from __future__ import annotations

import argparse
import collections
import datetime
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
from mert_hf.conversion.checkpoint_file import PROGRAM_LIMIT, Placeholder, read_checkpoint, state_dict_of

from .conftest import foreign_class


@pytest.fixture
def load(tmp_path):
    """Reads a torch archive with a pickle program of one's own, and one storage of four numbers."""

    def read(program: bytes):
        with zipfile.ZipFile(tmp_path / "own.pt", "w") as file:
            file.writestr("archive/data.pkl", program)
            file.writestr("archive/version", "3\n")
            file.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
        return read_checkpoint(tmp_path / "own.pt")

    return read


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
    tensors = state_dict_of(read_checkpoint(tmp_path / "a.pt"))
    assert tensors.keys() == state.keys()
    for name, expected in state.items():
        loaded = tensors[name]
        assert loaded.dtype == expected.dtype and torch.equal(loaded, expected.detach()), name
        assert not loaded.requires_grad


def test_module_state_dict_and_nesting(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save({"model": module.state_dict(), "epoch": 3, "set": {1, 2}, "size": torch.Size([2, 3])}, tmp_path / "a.pt")
    content = read_checkpoint(tmp_path / "a.pt")
    assert (content["epoch"], content["set"], content["size"]) == (3, {1, 2}, (2, 3))
    assert torch.equal(state_dict_of(content)["0.weight"], module[0].weight)


def test_values_without_use_are_noted(tmp_path):
    noted = {
        "rng": np.random.RandomState(0),
        "array": np.arange(3),
        "day": datetime.date(2026, 1, 2),
        "number": np.int64(3),
    }
    noted |= {"place": pathlib.PurePosixPath("a/b"), "namespace": argparse.Namespace(a=1)}
    torch.save(noted | {"last": collections.deque([1]), "device": torch.device("cpu")}, tmp_path / "a.pt")
    content = read_checkpoint(tmp_path / "a.pt")
    assert (content.pop("last"), content.pop("device")) == ([1], torch.device("cpu"))
    assert all(isinstance(value, Placeholder) for value in content.values())


def test_optimizer_state_is_mapped_from_the_file(tmp_path):
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    torch.save({"optimizer": optimizer.state_dict(), "loss": np.float64(1.5)}, tmp_path / "a.pt")
    moment = read_checkpoint(tmp_path / "a.pt")["optimizer"]["state"][0]["exp_avg"]
    assert not moment.untyped_storage().resizable()
    assert torch.allclose(moment, torch.full((4,), 0.1))


def test_unknown_classes_become_inert_placeholders(load):
    with foreign_class("fairseq.data.dictionary", "Dictionary") as kind:
        kind.__init__ = lambda self: pytest.fail("the class was called")
        kind.__setstate__ = lambda self, state: pytest.fail("the state was set")
        thing = kind.__new__(kind)
        thing.symbols = ["<s>", 1]
        program = pickle.dumps([thing, {"again": thing}, kind], protocol=2)
        placeholder, again, mentioned = load(program)
    assert isinstance(placeholder, Placeholder) and again["again"] is placeholder and type(placeholder) is mentioned
    assert (placeholder.kind, placeholder.state) == ("fairseq.data.dictionary.Dictionary", {"symbols": ["<s>", 1]})
    assert repr(placeholder) == "<placeholder of fairseq.data.dictionary.Dictionary>"


def test_plain_values_survive(load):
    value = {
        "text": "ä", "bytes": b"\x00\xff", "int": 2**80, "float": -1.5, "none": None, "tuple": (1, (2,)),
        "ordered": collections.OrderedDict(a=1), "default": collections.defaultdict(list, b=2), ("key", 1): [True],
    }  # fmt: skip
    assert load(pickle.dumps(value, protocol=2)) == value


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_other_protocols_are_named(protocol, load):
    with pytest.raises(CheckpointError, match=f"pickle protocol {protocol}; save it again"):
        load(pickle.dumps({"a": 1}, protocol=protocol))


def test_names_allowed_for_one_file_are_not_allowed_for_the_next(load):
    before = set(torch.serialization.get_safe_globals())
    load(b"\x80\x02ca.b\nThing\n)R.")
    assert set(torch.serialization.get_safe_globals()) == before


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
    with pytest.raises(UnsafeCheckpointError, match=name):
        read_checkpoint(tmp_path / "a.pt")
    assert not target.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch %s'\ntR.",  # REDUCE
        b"(S'touch %s'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch %s'\no.",  # OBJ
        b"\x80\x02cposix\nsystem\nU\x05touch\x85\x81.",  # NEWOBJ
        b"\x80\x02c__builtin__\nobject.system\n.",  # a dotted name
        b"\x80\x02c__builtin__\neval\nU\x011\x85R.",
        b"\x80\x02ctorch.storage\n_load_from_bytes\nU\x01.\x85R.",
        b"\x80\x02cos\nsystem\n.",  # never called
    ],
)
def test_every_way_to_name_a_function_is_refused(program, load, tmp_path):
    target = tmp_path / "touched"
    with pytest.raises(UnsafeCheckpointError, match=r"system|eval|_load_from_bytes"):
        load(program.replace(b"%s", str(target).encode()))
    assert not target.exists()


def test_functions_of_unknown_modules_are_refused_and_their_modules_not_imported(load, tmp_path, monkeypatch):
    (tmp_path / "evilmodule.py").write_text(
        f"open({str(tmp_path / 'touched')!r}, 'w')\ndef run(): pass\nclass Thing: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnsafeCheckpointError, match=r"calls the function evilmodule\.run"):
        load(b"\x80\x02cevilmodule\nrun\n)R.")
    assert load(b"\x80\x02cevilmodule\nThing\n)R.").kind == "evilmodule.Thing"
    assert not (tmp_path / "touched").exists()


def test_results_of_placeholders_are_not_called(load):
    with pytest.raises(CheckpointError, match="cannot be read"):
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
    "no argument tuple": b"\x80\x02ca.b\nThing\nK\x01R.",
    "wrong tensor": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR.",
    "wrong arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "odd items": b"\x80\x02}(K\x01u.",
    "huge text": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.",
    "key nested without end": b"\x80\x02}K\x01" + b"\x85" * 200_000 + b"K\x01s.",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_programs_are_one_clear_error(name, load):
    with pytest.raises(CheckpointError, match=r"own\.pt.*(damaged|save it again)"):
        load(DAMAGED[name])


def test_a_forged_memo_index_costs_nothing(load):
    assert load(b"\x80\x02]r\xff\xff\xff\xff.") == []


def test_a_program_beyond_the_limit_is_refused(load):
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
                for tensor in state_dict_of(read_checkpoint(tmp_path / "b.pt")).values():
                    tensor.sum()
            except CheckpointError:
                pass


@pytest.mark.parametrize("size", [0, 1, 10, 5000])
def test_other_files_are_refused(size, tmp_path):
    (tmp_path / "a.pt").write_bytes(random.Random(size).randbytes(size))
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_checkpoint(tmp_path / "a.pt")
    pickle.dump({"a": 1}, (tmp_path / "b.pt").open("wb"))
    with pytest.raises(CheckpointError, match="pickle protocol|damaged"):
        read_checkpoint(tmp_path / "b.pt")


def test_other_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match=r"no data\.pkl"):
        read_checkpoint(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("b/data.pkl", b"\x80\x02N." + b"\0" * 10**6)
    with pytest.raises(CheckpointError, match="compressed or encrypted"):
        read_checkpoint(tmp_path / "b.pt")
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as file:  # the mark of a TorchScript archive, whose code could run
        for name, data in {"data.pkl": b"\x80\x02N.", "constants.pkl": b"\x80\x02).", "version": b"3\n"}.items():
            file.writestr(f"c/{name}", data)
    with pytest.raises(CheckpointError, match=r"c\.pt"):
        read_checkpoint(tmp_path / "c.pt")


def tensor_program(count: int, offset: bytes, shape: bytes, stride: bytes) -> bytes:
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK" + bytes([count]) + b"tQ"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + b"\x89NtR."


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tensor_program(4, b"K\x00", b"K\x02K\x02\x86", b"K\x02K\x01\x86"), None),
        (tensor_program(4, b"K\x01", b"K\x02K\x02\x86", b"K\x02K\x01\x86"), "damaged"),
        (tensor_program(4, b"K\x00", b"J\x00\x00\x00\x7f\x85", b"K\x00\x85"), "holds no state dict"),
        (tensor_program(4, b"J\xff\xff\xff\xff", b"K\x02\x85", b"K\x01\x85"), "damaged"),
        (tensor_program(4, b"K\x00", b"K\x02\x85", b"K\x02K\x01\x86"), "damaged"),
    ],
)
def test_tensors_stay_within_their_storage(program, message, load):
    program = b"\x80\x02}X\x01\x00\x00\x00y" + program[2:-1] + b"s."
    if message is None:
        assert torch.equal(load(program)["y"], torch.arange(4.0).reshape(2, 2))
    else:
        with pytest.raises(CheckpointError, match=message):
            state_dict_of(load(program))


def test_state_dict_of_other_things():
    with pytest.raises(CheckpointError, match="holds no state dict, neither bare nor under one of model"):
        state_dict_of([1, 2])


def test_a_torch_whose_loader_runs_code_is_refused(tmp_path, monkeypatch):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(CheckpointError, match="Install torch >= 2.6"):
        read_checkpoint(tmp_path / "model.pt")
