"""MERT2Model: the authors' numbers, exact padding, precision of the front end, sizes, input errors."""

import copy
import re

import numpy as np
import pytest
import torch
from reference_numbers import REFERENCE, load_expected
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from mert_hf import MERT2Config, MERT2Model
from mert_hf.modeling import modeling_mert2
from mert_hf.modeling.modeling_mert2 import rotary_tables, rotate

TOLERANCE = 2e-4


def music(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def largest_difference(ours, theirs) -> float:
    return max((a.float() - b.float()).abs().max().item() for a, b in zip(ours, theirs, strict=True))


@pytest.fixture
def reference():
    return REFERENCE / "mert2", load_expected("mert2")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("junk", [0.0, 1.0, 3e4])
def test_authors_numbers(reference, attention, junk):
    """The published architecture's numbers, padded or not, whatever stands in the padding."""
    folder, expected = reference
    model = AutoModel.from_pretrained(folder, attn_implementation=attention).eval()
    assert type(model).__name__ == "MERT2Model" and "transformers_modules" not in type(model).__module__
    mask = expected["attention_mask"]
    noise = junk * music(*mask.shape)
    padded = torch.where(mask.bool(), expected["input_values"], noise)
    with torch.no_grad():
        mel = model.feature_extractor(expected["input_values"])
        plain = model(expected["input_values"], output_hidden_states=True)
        masked = model(padded, mask, output_hidden_states=True)
    states = [expected[f"hidden_states.{k}"] for k in range(3)]
    assert len(plain.hidden_states) == 3 and plain.feature_attention_mask.all()
    assert largest_difference([mel], [expected["mel"]]) < TOLERANCE
    assert largest_difference([plain.input_hidden_state], [expected["subsampled"]]) < TOLERANCE
    assert largest_difference(plain.hidden_states, states) < TOLERANCE
    assert largest_difference([masked.last_hidden_state], [expected["masked.last_hidden_state"]]) < TOLERANCE
    torch.testing.assert_close(masked.last_hidden_state, masked.hidden_states[-1])
    counts = masked.feature_attention_mask.sum(dim=1)
    assert counts.tolist() == (mask.sum(dim=1) // 960).tolist()


def test_default_configuration_is_the_published_model():
    with torch.device("meta"):
        model = MERT2Model(MERT2Config())
    assert sum(parameter.numel() for parameter in model.parameters()) == 632_295_808
    assert len(model.state_dict()) == 876


def test_state_dict_has_the_authors_names(reference):
    folder, _ = reference
    stored = load_file(folder / "model.safetensors")
    state = MERT2Model(MERT2Config.from_pretrained(folder)).state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in stored.items()}
    for name in ("spectrogram.window", "mel_scale.fb"):  # the constants that a new model computes for itself
        name = f"feature_extractor.{name}"
        torch.testing.assert_close(state[name], stored[name], atol=2e-5, rtol=0)


VARIANTS = {
    "published stages": {},
    "two stages": {"subsampling_channels": [24, 32], "subsampling_depths": [2, 1], "subsampling_strides": [2, 2]},
    "one stage": {"subsampling_channels": [32], "subsampling_depths": [1], "subsampling_strides": [2]},
    "first stage changes the width": {"num_mel_bins": 20},
    "short window": {"win_length": 400},
    "constant-Q input": {"cqt_input_bins": 84},
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_mix_of_lengths_equals_each_row_alone(tiny_config2, stirred, variant, attention):
    torch.manual_seed(0)
    config = tiny_config2(attn_implementation=attention, **VARIANTS[variant])
    model = stirred(MERT2Model(config))
    draw = np.random.default_rng(0)
    for trial in range(2):
        lengths = draw.integers(config.receptive_field + 960, 30_000, size=5).tolist() + [config.receptive_field]
        if trial == 0:
            lengths += [960 * 9 - 1, 960 * 9, 960 * 9 + 1, 240 * 39 - 1, 240 * 39]
        size = max(lengths) + int(draw.integers(0, 2_000))
        clips = [music(1, length, seed) for seed, length in enumerate(lengths)]
        batch = 1e4 * music(len(clips), size, 99)
        mask = torch.zeros(len(clips), size, dtype=torch.long)
        for row, clip in enumerate(clips):
            batch[row, : clip.shape[1]], mask[row, : clip.shape[1]] = clip[0], 1
        with torch.no_grad():
            together = model(batch, mask, output_hidden_states=True)
            assert together.last_hidden_state.shape[1] == config.num_frames(size)
            for row, clip in enumerate(clips):
                alone = model(clip, output_hidden_states=True)
                frames = config.num_frames(clip.shape[1])
                assert alone.last_hidden_state.shape[1] == frames == together.feature_attention_mask[row].sum()
                ours = [*together.hidden_states, together.input_hidden_state, together.last_hidden_state]
                theirs = [*alone.hidden_states, alone.input_hidden_state, alone.last_hidden_state]
                assert largest_difference([s[row, :frames] for s in ours], [s[0] for s in theirs]) < TOLERANCE
                assert not any(states[row, frames:].any() for states in ours)


def test_gradients_do_not_depend_on_the_padding(tiny_config2, stirred):
    torch.manual_seed(0)
    model = stirred(MERT2Model(tiny_config2()))
    clips = [music(1, 9_000, 1), music(1, 5_000, 2)]
    batch, mask = torch.full((2, 9_500), 50.0), torch.zeros(2, 9_500, dtype=torch.long)
    for row, clip in enumerate(clips):
        batch[row, : clip.shape[1]], mask[row, : clip.shape[1]] = clip[0], 1
    gradients = []
    for inputs in ([(batch, mask)], [(clip, None) for clip in clips]):
        model.zero_grad()
        for values, valid in inputs:
            model(values, valid).last_hidden_state.square().sum().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, atol=1e-3 * float(gradient.norm()), rtol=0)


def test_gradients_can_be_read_at_hidden_states(tiny_config2):
    """The returned states of a padded batch are those that the next block takes, not copies of them."""
    mask = torch.ones(2, 9_000, dtype=torch.long)
    mask[1, 5_000:] = 0
    outputs = MERT2Model(tiny_config2())(music(2, 9_000), mask, output_hidden_states=True)
    outputs.hidden_states[0].retain_grad()
    outputs.last_hidden_state.square().sum().backward()
    frames = outputs.feature_attention_mask
    assert outputs.hidden_states[0].grad[frames].abs().sum(dim=-1).min() > 0
    assert not outputs.hidden_states[0].grad[~frames].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_front_end_stays_float32(reference, dtype, tmp_path):
    """Loaded in half precision, cast afterwards, saved again or under autocast: every bit of it stays."""
    folder, expected = reference
    whole = MERT2Model.from_pretrained(folder).eval()
    constants = {name: buffer.clone() for name, buffer in whole.feature_extractor.named_buffers()}
    loaded = MERT2Model.from_pretrained(folder, torch_dtype=dtype)
    loaded.save_pretrained(tmp_path)
    models = [loaded, copy.deepcopy(whole).to(dtype), MERT2Model.from_pretrained(tmp_path, torch_dtype=dtype)]
    for model in models:
        assert model.dtype == dtype and {p.dtype for p in model.parameters()} == {dtype}
        for name, buffer in model.feature_extractor.named_buffers():
            assert buffer.dtype == torch.float32 and torch.equal(buffer, constants[name]), name
        mel = model.feature_extractor(expected["input_values"])
        assert mel.dtype == torch.float32 and largest_difference([mel], [expected["mel"]]) < TOLERANCE
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mel = whole.feature_extractor(expected["input_values"])
    assert mel.dtype == torch.float32 and largest_difference([mel], [expected["mel"]]) < TOLERANCE
    if dtype == torch.bfloat16:
        with torch.no_grad():
            states = loaded.eval()(expected["input_values"]).last_hidden_state
        assert torch.nn.functional.cosine_similarity(
            states.float().flatten(), expected["hidden_states.2"].flatten(), dim=0
        ) > 0.999  # fmt: skip


def test_missing_and_foreign_weights_are_refused(reference, tmp_path):
    folder, _ = reference
    weights = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    for name in ("feature_extractor.mel_mean", "layers.1.attn.query_proj.weight"):
        save_file({k: v for k, v in weights.items() if k != name}, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=re.escape(f"missing 1 ({name})")):
            MERT2Model.from_pretrained(tmp_path)
    save_file({**weights, "layers.3.ffn1.w_1.bias": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="unexpected 1"):
        MERT2Model.from_pretrained(tmp_path)


def test_rotary_positions_turn_pairs_by_their_frame(tiny_config2):
    """Against complex multiplication, the definition of the embedding."""
    config = tiny_config2()
    states = music(4, 8 * 50).reshape(4, 50, 8)
    frequencies = 10000.0 ** (-np.arange(4) / 4)
    turned = (states[..., :4].numpy() + 1j * states[..., 4:].numpy()) * np.exp(
        1j * np.arange(50)[:, None] * frequencies
    )
    expected = torch.from_numpy(np.concatenate([turned.real, turned.imag], axis=-1)).float()
    torch.testing.assert_close(rotate(states, *rotary_tables(config, 50, states.device)), expected)


def test_masked_frames_hide_their_audio(tiny_config2, stirred):
    torch.manual_seed(0)
    config = tiny_config2(mask_noise_std=0.0, cqt_input_bins=84)
    model = stirred(MERT2Model(config))
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[0, 4:8] = True
    one, two = music(1, 960 * 12), music(1, 960 * 12)
    two[:, 960 * 5 : 960 * 7] = 0.1 * music(1, 960 * 2, 7)  # heard by masked mel frames alone
    assert config.n_fft // 2 < 960
    with torch.no_grad():
        model.cqt_input = None
        torch.testing.assert_close(
            model(one, mask_time_indices=mask)[0], model(two, mask_time_indices=mask)[0], atol=1e-5, rtol=1e-4
        )
        assert (model(one)[0] - model(two)[0]).abs().max() > 1e-2
        model.config.mask_noise_std = 1.0
        assert (model(one, mask_time_indices=mask)[0] - model(one, mask_time_indices=mask)[0]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=re.escape("mask_time_indices must have shape (1, 12)")):
        model(one, mask_time_indices=mask[:, :11])


def test_front_end_is_complete_without_the_initialization_of_weights(tiny_config2):
    """As in `no_init_weights()`: the constants do not wait for a model's `post_init`."""
    config = tiny_config2()
    expected = MERT2Model(config).feature_extractor.state_dict()
    torch.testing.assert_close(modeling_mert2.MERT2MelFrontEnd(config).state_dict(), expected, rtol=0.0, atol=0.0)


def test_input_statistics(tiny_config2):
    model = MERT2Model(tiny_config2())
    clips = [music(1, length, seed)[0] * gain for seed, (length, gain) in enumerate([(9_000, 1.0), (20_000, 0.1)])]
    model.fit_input_statistics(clips)
    frames = torch.cat([model.feature_extractor(clip[None])[0] for clip in clips])
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.std(dim=0, correction=0), torch.ones(16), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="no clip"):
        model.fit_input_statistics([])


def test_inputs_that_no_frame_fits_are_refused(tiny_config2):
    model = MERT2Model(tiny_config2())
    with pytest.raises(ValueError, match="one frame needs 960"):
        model(torch.zeros(1, 959))
    with pytest.raises(TypeError, match="floating-point"):
        model(torch.zeros(1, 4_000, dtype=torch.long))


def test_padded_frames_and_attention_fall_back(tiny_config2, stirred):
    torch.manual_seed(0)
    model = stirred(MERT2Model(tiny_config2(attn_implementation="sdpa")))
    with torch.no_grad():
        outputs = model(music(2, 9_000), output_attentions=True)
        eager = MERT2Model(tiny_config2(attn_implementation="eager")).eval()
        eager.load_state_dict(model.state_dict())
        expected = eager(music(2, 9_000), output_attentions=True)
    assert largest_difference(outputs.attentions, expected.attentions) < 1e-5
    torch.testing.assert_close(outputs.attentions[0].sum(dim=-1), torch.ones(2, 4, 9))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_repeats_the_same_network(tiny_config2, stirred, reentrant):
    torch.manual_seed(0)
    model = stirred(MERT2Model(tiny_config2(cqt_input_bins=84))).train()
    mask = torch.ones(2, 9_000, dtype=torch.long)
    mask[1, 6_000:] = 0
    gradients, calls = [], []
    for inner in (model.layers[0].ffn1, model.subsampling_module[0].convnext_layers[0].pointwise_block["1"]):
        inner.register_forward_hook(lambda module, inputs, outputs: calls.append(module))
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.zero_grad()
        calls.clear()
        model(music(2, 9_000), mask)[0].square().mean().backward()
        assert len(calls) == (4 if checkpointing else 2)  # each layer is computed again in the backward pass
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_padded_batches_in_half_precision(tiny_config2, stirred, dtype):
    torch.manual_seed(0)
    model = stirred(MERT2Model(tiny_config2()))
    mask = torch.ones(2, 20_000, dtype=torch.long)
    mask[1, 11_000:] = 0
    with torch.no_grad():
        expected = model(music(2, 20_000), mask)[0]
        half = model.to(dtype)(music(2, 20_000).to(dtype), mask)[0]
    assert half.dtype == dtype and not half[1, 11:].any()
    similar = torch.nn.functional.cosine_similarity(half.float(), expected, dim=-1)
    assert similar[0].min() > 0.99 and similar[1, :11].min() > 0.99


def test_a_compiled_model_takes_masks(tiny_config2, stirred):
    torch.manual_seed(0)
    model = stirred(MERT2Model(tiny_config2()))
    mask = torch.ones(2, 9_000, dtype=torch.long)
    mask[1, 6_000:] = 0
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(music(2, 9_000), mask)[0], model(music(2, 9_000), mask)[0])
        torch.testing.assert_close(compiled(music(2, 9_000))[0], model(music(2, 9_000))[0])


def test_lora_adapters_learn(tiny_config2):
    peft = pytest.importorskip("peft")
    model = MERT2Model(tiny_config2())
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query_proj", "value_proj", "w_1"]))
    adapted(music(2, 9_000))[0].square().mean().backward()
    learning = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(learning) == 3 * 4 * 2 and all("lora" in name for name in learning)
    assert any(p.grad is not None and p.grad.any() for p in adapted.parameters() if p.requires_grad)
