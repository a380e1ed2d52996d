"""Opening teachers by name and from folders, whatever is in them; fingerprints; the CQT teacher's own part."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mert_hf
from mert_hf.corpora.code_counts import CodeCounts
from mert_hf.modeling.cqt_mert import MERTConstantQTransform
from mert_hf.teachers import TEACHERS, CQTTeacher, EncodecTeacher, KMeansTeacher, LogMelTeacher, load_teacher

SMALL_CQT = {"sampling_rate": 16000, "num_bins": 84, "bins_per_octave": 12}


def test_teachers_by_name():
    assert load_teacher("cqt").num_bins == 336
    assert load_teacher("log_mel", num_bins=40).num_bins == 40
    assert {kind: teacher.kind for kind, teacher in TEACHERS.items()} == {kind: kind for kind in TEACHERS}
    assert mert_hf.KMeansTeacher is KMeansTeacher and mert_hf.EncodecTeacher is EncodecTeacher


def test_each_kind_opens_from_its_folder(kmeans, codec, tmp_path):
    for teacher in (kmeans, EncodecTeacher(codec()), CQTTeacher(**SMALL_CQT), LogMelTeacher()):
        folder = tmp_path / teacher.kind
        teacher.save_pretrained(folder)
        assert json.loads((folder / "teacher_config.json").read_text())["teacher"] == teacher.kind
        loaded = load_teacher(folder)
        assert type(loaded) is type(teacher) and loaded.fingerprint() == teacher.fingerprint()
        assert not loaded.training and not loaded.train().training


def test_kmeans_has_to_be_fitted():
    with pytest.raises(ValueError, match="made first, by `mert-hf fit-kmeans`"):
        load_teacher("kmeans")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "must hold a JSON object, but holds a list"),
        (b"{}", "names the teacher None. Known are encodec, encodec_meta, kmeans"),
        (b'{"teacher": "os.system"}', "names the teacher 'os.system'"),
        (b'{"teacher": "log_mel", "device": "x"}', "do not fit LogMelTeacher"),
        (b'{"teacher": "cqt", "mean": 5}', "do not fit CQTTeacher|come together"),
        (b'{"teacher": "cqt", "num_bins": 2000}', "more than half the sampling rate"),
        (b'{"teacher": "kmeans"}', "do not fit KMeansTeacher"),
    ],
)
def test_hostile_settings(tmp_path, content, text):
    (tmp_path / "teacher_config.json").write_bytes(content)
    with pytest.raises(ValueError, match=text):
        load_teacher(tmp_path)


def test_a_teacher_of_another_kind(tmp_path):
    LogMelTeacher().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not describe a cqt teacher. mert_hf.teachers.load_teacher opens any"):
        CQTTeacher.from_pretrained(tmp_path)


def test_a_folder_without_a_teacher(tmp_path):
    with pytest.raises(ValueError, match="it is not a saved teacher"):
        KMeansTeacher.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither teacher_config.json nor config.json.*`mert-hf fit-kmeans`"):
        load_teacher(tmp_path)


def test_damaged_weights(kmeans, tmp_path):
    kmeans.save_pretrained(tmp_path)
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="teacher.safetensors is damaged"):
        load_teacher(tmp_path)


def test_fingerprints_tell_settings_and_weights_apart(kmeans):
    prints = [CQTTeacher(**SMALL_CQT, log=log).fingerprint() for log in (False, True)]
    prints += [LogMelTeacher(num_bins=bins).fingerprint() for bins in (80, 81)]
    changed = copy.deepcopy(kmeans)
    changed.centres_0[0, 0] += 1e-6
    prints += [kmeans.fingerprint(), changed.fingerprint()]
    assert len(set(prints)) == len(prints) and all(len(text) == 64 for text in prints)
    assert pickle.loads(pickle.dumps(kmeans)).fingerprint() == kmeans.fingerprint()


def test_cqt_teacher_is_the_transform(sounds):
    expected = MERTConstantQTransform(16000, 320, 84, 12)(sounds)
    assert torch.equal(CQTTeacher(**SMALL_CQT)(sounds), expected)
    assert torch.equal(CQTTeacher(**SMALL_CQT, log=True)(sounds), torch.log1p(100 * expected))


def test_standardized_cqt(sounds, tmp_path):
    teacher = CQTTeacher(**SMALL_CQT, log=True).standardized([sounds[:2], sounds[2]])
    values = teacher(sounds).flatten(0, 1)
    assert values.mean(0).abs().max() < 1e-3 and (values.std(0, correction=0) - 1).abs().max() < 1e-3
    teacher.save_pretrained(tmp_path)
    assert torch.equal(load_teacher(tmp_path)(sounds), teacher(sounds))
    assert torch.equal(copy.deepcopy(teacher)(sounds), teacher(sounds))
    with pytest.raises(ValueError, match="needs at least two frames"):
        CQTTeacher(**SMALL_CQT).standardized([])
    save_file({"mean": torch.zeros(84)}, tmp_path / "teacher.safetensors")
    with pytest.raises(ValueError, match="mean and scale come together"):
        load_teacher(tmp_path)


@pytest.mark.parametrize("field", ["sampling_rate", "hop_length", "num_bins", "bins_per_octave"])
def test_cqt_sizes_that_make_no_sense(field):
    for value in (0, 1.5, "3", None):
        with pytest.raises(ValueError, match=f"{field}=.* must be a positive integer"):
            CQTTeacher(**{field: value})


def test_entropy_and_histogram():
    counts = CodeCounts([4, 2])
    counts.add(np.array([[0, 1, 2, 3], [0, 0, 0, 1]]))
    counts.add(np.array([[0, 1, 2, 3], [0, 1, 1, 1]], dtype=np.uint8))
    assert counts.counts[0].tolist() == [2, 2, 2, 2] and counts.counts[1].tolist() == [4, 4]
    assert counts.entropy(0) == 2.0 and counts.entropy(1) == 1.0 and counts.dead() == []
    assert counts.summary()[0]["used"] == 4 and counts.summary()[1]["commonest_share"] == 0.5
    assert len(counts.table().splitlines()) == 3 and "2.00/2.00" in counts.table()
    counts.check()


@pytest.mark.parametrize("code", [-1, 4, 2**40])
def test_codes_out_of_range(code):
    with pytest.raises(ValueError, match=f"Codebook 1 has the codes 0 to 3, but codes from .*{code}"):
        CodeCounts([4, 4]).add(np.array([[0, 1], [2, code]]))


def test_codes_of_another_shape():
    with pytest.raises(ValueError, match=r"Expected codes of shape \(2, frames\), got \(3, 5\)"):
        CodeCounts([4, 4]).add(np.zeros((3, 5), np.int64))


def test_dead_codebooks():
    counts = CodeCounts([1024, 1024, 8])
    even = np.arange(10_000)
    counts.add(np.stack([even % 1024, np.zeros(10_000, np.int64), np.where(even % 101 == 0, 1 + even % 7, 3)]))
    assert counts.dead() == [1, 2]
    with pytest.raises(ValueError, match=r"(?s)Dead codebooks: 1, 2\. .* is the audio silent.*codebook  used/codes"):
        counts.check()


def test_neither_folder_nor_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("outputs/none", "no/such/teacher/here"):
        with pytest.raises(FileNotFoundError, match=f"{name}' is neither a folder nor"):
            load_teacher(name)
