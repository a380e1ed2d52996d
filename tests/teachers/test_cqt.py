"""The constant-Q transform against nnAudio, and in the places where a module has to live."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from mert_hf.modeling import cqt_mert
from mert_hf.modeling.cqt_mert import MERTConstantQTransform
from mert_hf.teachers import CQTTeacher

nnaudio = pytest.importorskip("nnAudio.features.cqt", reason="nnAudio is the reference; pip install nnaudio")

TOLERANCE = 3e-5  # the requirement is 1e-4; measured 5e-6 of the norm and 1e-5 of a bin's norm or the maximum


def reference(waveforms, sampling_rate=24000, hop_length=320, num_bins=336, bins_per_octave=48, f_min=32.7):
    """nnAudio's magnitudes, (batch, frames, bins)."""
    transform = nnaudio.CQT(
        sampling_rate,
        hop_length,
        fmin=f_min,
        n_bins=num_bins,
        bins_per_octave=bins_per_octave,
        filter_scale=1,
        norm=1,
        window="hann",
        center=True,
        pad_mode="constant",
        output_format="Magnitude",
        verbose=False,
    )
    with torch.no_grad():
        return transform(waveforms).transpose(1, 2)


def assert_equal_to_reference(waveforms, *sizes):
    """By the norm of all values, of each bin, and by the largest difference."""
    expected, actual = reference(waveforms, *sizes), MERTConstantQTransform(*sizes)(waveforms)
    assert actual.shape == expected.shape and actual.dtype == torch.float32
    error = actual - expected
    assert error.norm() < TOLERANCE * expected.norm()
    assert error.abs().max() < TOLERANCE * expected.max()
    assert (error.norm(dim=(0, 1)) < TOLERANCE * expected.norm(dim=(0, 1))).all()


@pytest.fixture
def small():
    """84 bins at 16 kHz, hop 320: the input of the v0 models."""
    return MERTConstantQTransform(16000, 320, 84, 12)


@pytest.mark.parametrize(("batch", "samples"), [(1, 1), (2, 319), (1, 320), (3, 5001), (2, 24000), (1, 60011)])
def test_equals_nnaudio_at_the_settings_of_the_paper(generator, batch, samples):
    assert_equal_to_reference(torch.randn(batch, samples, generator=generator))


@pytest.mark.parametrize(
    "sizes",
    [
        (16000, 320, 84, 12, 32.7),
        (16000, 320, 336, 48, 32.7),
        (24000, 320, 84, 12, 32.7),
        (24000, 960, 168, 24, 32.7),
        (22050, 512, 84, 12, 32.7),
        (8000, 100, 48, 12, 100.0),  # bands that reach below 0 Hz
        (44100, 441, 10, 2, 30.0),  # as wide as octaves
        (24000, 321, 400, 100, 750.0),  # long kernels near half the rate, an odd hop
        (24000, 320, 60, 60, 5000.0),  # short kernels only
        (8000, 40, 3, 1, 900.0),  # kernels of a few samples
    ],
)
def test_equals_nnaudio_at_other_settings(generator, sizes):
    assert_equal_to_reference(torch.randn(2, 20001, generator=generator), *sizes)


def test_a_clip_of_several_windows_equals_nnaudio(generator, monkeypatch):
    monkeypatch.setattr(cqt_mert, "CQT_WINDOW_FRAMES", 128)
    for samples in (24000 * 3, 64000, 320 * 260):
        assert_equal_to_reference(torch.randn(1, samples, generator=generator), 16000, 320, 84, 12, 32.7)


@pytest.mark.slow
def test_minutes_equal_nnaudio(generator):
    assert_equal_to_reference(torch.randn(1, 24000 * 60, generator=generator))


def test_music_equals_nnaudio(music):
    # Bins without sound hold what nnAudio's kernels leak from afar: there only the largest values count.
    waveforms = torch.from_numpy(music)[None]
    expected, actual = reference(waveforms), MERTConstantQTransform()(waveforms)
    assert (actual - expected).abs().max() < 1e-5 * expected.max()


@pytest.mark.parametrize("frequency_bin", [0, 48, 100, 200, 335])
def test_a_sine_peaks_in_its_bin(frequency_bin):
    frequency = 32.7 * 2 ** (frequency_bin / 48)
    sine = torch.sin(2 * np.pi * frequency * torch.arange(96000, dtype=torch.float64) / 24000).float()[None]
    middle = MERTConstantQTransform()(sine)[0, 150]
    assert middle.argmax() == frequency_bin


def test_bins_of_exact_frequencies_have_no_singularity():
    # 440 Hz against 16000 Hz in 60000 samples put a frequency of the spectrum on the very edge of a kernel's main lobe.
    sine = torch.sin(2 * np.pi * 440 * torch.arange(60000, dtype=torch.float64) / 16000).float()[None]
    expected = reference(sine, 16000)
    assert (MERTConstantQTransform(16000)(sine) - expected).abs().max() < TOLERANCE * expected.max()


def test_clips_do_not_see_each_other_and_lengths_do_not_matter(small, generator):
    waveforms = torch.randn(3, 30000, generator=generator)
    together = small(waveforms)
    for row in range(3):
        torch.testing.assert_close(small(waveforms[row : row + 1])[0], together[row], rtol=1e-4, atol=1e-5)
    padded = small(torch.nn.functional.pad(waveforms, (0, 50000)))  # silence follows the clip either way
    torch.testing.assert_close(padded[:, : together.shape[1]], together, rtol=0, atol=3e-5 * float(together.max()))


def test_silence_is_zero(small):
    assert not small(torch.zeros(1, 8000)).any()


def test_float32_under_autocast_and_for_other_input_types(small, generator):
    waveforms = torch.randn(1, 16000, generator=generator)
    expected = small(waveforms)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(small(waveforms), expected, rtol=0, atol=0)
    torch.testing.assert_close(small(waveforms.double()), expected, rtol=0, atol=0)
    half = waveforms.half()
    torch.testing.assert_close(small.half()(half), small(half.float()), rtol=0, atol=0)


def test_no_parameter_and_no_key_in_checkpoints(small):
    small(torch.zeros(1, 4000))
    assert not small.state_dict() and not list(small.parameters()) and not list(small.buffers())


def test_built_on_the_meta_device(small, generator):
    waveforms = torch.randn(1, 4000, generator=generator)
    with torch.device("meta"):
        module = MERTConstantQTransform(16000, 320, 84, 12)
    torch.testing.assert_close(module(waveforms), small(waveforms), rtol=0, atol=0)
    assert module(waveforms.to("meta")).shape == (1, 13, 84)


def test_copies_carry_no_kernels(small, generator):
    waveforms = torch.randn(1, 4000, generator=generator)
    expected = small(waveforms)
    assert len(pickle.dumps(small)) < 20_000
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        torch.testing.assert_close(other(waveforms), expected, rtol=0, atol=0)


def test_kernels_of_the_last_windows_only_are_kept(small):
    for samples in range(8000, 160000, 16000):
        small(torch.zeros(1, samples))
    assert len(small._kernels) == cqt_mert.CQT_CACHED_WINDOWS


def test_kernels_made_in_inference_mode_serve_training(small, generator):
    waveforms = torch.randn(1, 8000, generator=generator)
    with torch.inference_mode():
        small(waveforms)
    waveforms.requires_grad_()
    small(waveforms).sum().backward()
    assert waveforms.grad.isfinite().all() and waveforms.grad.any()


def test_gradient_of_silence_is_finite(small):
    silence = torch.zeros(1, 8000, requires_grad=True)
    small(silence).sum().backward()
    assert silence.grad.isfinite().all()


def test_gradient_follows_differences():
    module = MERTConstantQTransform(2000, 40, 24, 12, 60.0)
    generator = torch.Generator().manual_seed(0)
    waveforms, direction = torch.randn(2, 1, 800, generator=generator)
    waveforms.requires_grad_()
    (slope,) = torch.autograd.grad(module(waveforms).sum(), waveforms)
    with torch.no_grad():
        difference = (module(waveforms + 1e-2 * direction).sum() - module(waveforms - 1e-2 * direction).sum()) / 2e-2
    torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("warm", [False, True])
def test_compiles_to_one_graph_for_any_length(small, generator, warm):
    lengths = (4000, 7000)
    if warm:
        small(torch.zeros(1, lengths[0]))
    torch._dynamo.reset()
    compiled = torch.compile(small, backend="eager", fullgraph=True)  # fullgraph: a break is an error
    for length in lengths:
        waveforms = torch.randn(2, length, generator=generator)
        torch.testing.assert_close(compiled(waveforms), small(waveforms), rtol=0, atol=0)


def test_exports_with_any_batch_size(small, generator):
    waveforms = torch.randn(2, 8000, generator=generator)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(small, (waveforms,), dynamic_shapes={"waveforms": {0: batch}}, strict=False)
    more = torch.randn(5, 8000, generator=generator)
    expected = small(more)  # by Fourier transforms; the export has convolutions
    torch.testing.assert_close(program.module()(more), expected, rtol=0, atol=2e-5 * expected.max().item())
    assert all(not isinstance(t, torch._subclasses.FakeTensor) for k in small._kernels.values() for t in k.taps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tf32", [False, True])
def test_cuda_equals_cpu(generator, tf32):
    waveforms, module = torch.randn(2, 48000, generator=generator), MERTConstantQTransform()
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.autocast("cuda", torch.bfloat16):
            actual = module(waveforms.cuda()).cpu()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    expected = module(waveforms)
    assert (actual - expected).abs().max() < 1e-5 * expected.max()


@pytest.mark.parametrize("name", ["sampling_rate", "hop_length", "num_bins", "bins_per_octave", "f_min"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} of the constant-Q transform must be positive, given {value}"):
        MERTConstantQTransform(**{name: value})


def test_bins_above_half_the_rate_are_refused():
    with pytest.raises(ValueError, match=r"reach 4126 Hz, more than half the sampling rate of 8000 Hz"):
        MERTConstantQTransform(8000)


@pytest.mark.parametrize("shape", [(16000,), (1, 1, 16000), (2, 0)])
def test_other_shapes_are_refused(small, shape):
    with pytest.raises(ValueError, match=r"waveforms must have the shape \(batch, samples\) with samples > 0"):
        small(torch.zeros(shape))


def test_integers_are_refused(small):
    with pytest.raises(TypeError, match=r"floating point, given torch\.int16"):
        small(torch.zeros(1, 16000, dtype=torch.int16))


def test_the_nnaudio_backend_is_nnaudio(sounds, tmp_path):
    pytest.importorskip("nnAudio", reason="nnAudio is not installed")
    settings = {"sampling_rate": 16000, "num_bins": 84, "bins_per_octave": 12}
    ours, theirs = (CQTTeacher(**settings, backend=backend) for backend in ("mert_hf", "nnaudio"))
    spectrum, reference = ours(sounds), theirs(sounds)
    assert spectrum.shape == reference.shape and (spectrum - reference).abs().max() < 1e-4 * reference.max()
    theirs.save_pretrained(tmp_path)
    loaded = CQTTeacher.from_pretrained(tmp_path)
    assert loaded.backend == "nnaudio" and torch.equal(loaded(sounds), reference)
    assert loaded.fingerprint() == theirs.fingerprint() != ours.fingerprint()
    assert "backend" not in ours.settings(), "fingerprints from before the choice existed stay valid"
    with pytest.raises(ValueError, match="backend must be 'mert_hf' or 'nnaudio', got 'librosa'"):
        CQTTeacher(backend="librosa")
