"""EnCodec through Meta's package: equal to transformers' EncodecModel, without torchaudio."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch

from mert_hf.conversion import convert_encodec_checkpoint
from mert_hf.teachers import EncodecTeacher, MetaEncodecTeacher, load_teacher
from mert_hf.teachers import encodec as module
from mert_hf.utils.optional import MissingExtraError

needs_encodec = pytest.mark.skipif(
    importlib.util.find_spec("encodec") is None, reason="not installed: pip install --no-deps encodec einops"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights of Meta's model, random, with random code vectors."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = module.meta_encodec().EncodecModel.encodec_model_24khz(pretrained=False)
        for layer in model.quantizer.vq.layers:
            layer._codebook.embed.data.normal_()
    path = tmp_path_factory.mktemp("meta") / "encodec_24khz.th"
    torch.save(model.state_dict(), path)
    return path


@needs_encodec
def test_codes_equal_those_of_transformers(weights, sounds, tmp_path):
    teacher = EncodecTeacher.from_meta(weights, num_codebooks=6)
    convert_encodec_checkpoint(weights, tmp_path / "ours")
    ours = EncodecTeacher.from_pretrained(tmp_path / "ours", num_codebooks=6)
    assert isinstance(teacher, MetaEncodecTeacher) and teacher.codebook_sizes == ours.codebook_sizes == (1024,) * 6
    assert (teacher.sampling_rate, teacher.frame_rate) == (ours.sampling_rate, ours.frame_rate) == (24000, 75.0)
    assert torch.equal(teacher(sounds), ours(sounds))


@needs_encodec
def test_saved_and_loaded_to_the_bit(weights, sounds, tmp_path):
    teacher = EncodecTeacher.from_meta(weights, num_codebooks=2)
    teacher.save_pretrained(tmp_path)
    loaded = load_teacher(tmp_path)
    assert loaded.fingerprint() == teacher.fingerprint() and torch.equal(loaded(sounds[:1]), teacher(sounds[:1]))


@needs_encodec
def test_no_torchaudio_is_left_behind():
    """In a process of its own, where neither package has been imported."""
    code = (
        "import sys, mert_hf.teachers.encodec as m;"
        "before = sys.modules.get('torchaudio', 'none'); m.meta_encodec();"
        "assert sys.modules.get('torchaudio', 'none') == before, sys.modules['torchaudio'];"
        "import transformers.models.encodec"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "encodec", None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps encodec einops"):
        EncodecTeacher.from_meta()


@needs_encodec
def test_sources_that_are_no_weights(tmp_path):
    with pytest.raises(ValueError, match="is neither 'encodec_24khz' nor a file of its weights"):
        EncodecTeacher.from_meta(tmp_path / "none.th")
    torch.save([1, 2], tmp_path / "list.th")
    with pytest.raises(ValueError, match="holds list, not a state dict"):
        EncodecTeacher.from_meta(tmp_path / "list.th")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.th")
    with pytest.raises(ValueError, match="do not fit Meta's encodec_24khz"):
        EncodecTeacher.from_meta(tmp_path / "other.th")
