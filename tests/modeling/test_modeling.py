"""MERTModel: the authors' numbers, padding, masks, attention, layerdrop, input errors, export."""

import copy
import re

import pytest
import torch
from reference_numbers import REFERENCE, load_expected
from torch.utils._python_dispatch import TorchDispatchMode

from mert_hf import MERT2Model, MERTModel
from mert_hf.modeling.modeling_mert import draw_span_mask, relaxed_softmax


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return MERTModel(tiny_config()).eval()


def waves(batch: int = 2, samples: int = 8000, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed)) * 0.3


def largest_difference(ours, theirs) -> float:
    return max((a.float() - b.float()).abs().max().item() for a, b in zip(ours, theirs, strict=True))


VARIANTS = {
    "post-LN": {},
    "pre-LN": {"do_stable_layer_norm": True},
    "deepnorm": {"deepnorm": True},
    "deepnorm and relax": {"deepnorm": True, "attention_relax": 32.0},
    "layer norm of every convolution": {"feat_extract_norm": "layer", "conv_bias": True},
    "no projection norm": {"feat_proj_layer_norm": False},
    "16 kHz": {"sample_rate": 16000},
    "odd position kernel": {"num_conv_pos_embeddings": 15},
    "CQT input": {"sample_rate": 16000, "feature_extractor_cqt": True, "feature_extractor_cqt_bins": 84},
    "log-CQT input": {
        "feature_extractor_cqt": True,
        "feature_extractor_cqt_bins": 84,
        "feature_extractor_cqt_log": True,
    },
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["hub_base", "hub_large"])
def test_authors_numbers(name, attention):
    """Hidden states and attentions of the authors' code, with and without padding."""
    expected = load_expected(name)
    model = MERTModel.from_pretrained(REFERENCE / name, attn_implementation=attention, mask_group_norm=False).eval()
    with torch.no_grad():
        plain = model(expected["input_values"], output_hidden_states=True, output_attentions=True)
        padded = model(expected["input_values"], expected["attention_mask"], output_hidden_states=True)
    assert largest_difference(plain.hidden_states, [expected[f"hidden_states.{i}"] for i in range(4)]) < 1e-4
    assert largest_difference(plain.attentions, [expected[f"attentions.{i}"] for i in range(3)]) < 1e-4
    valid = model.frame_mask(expected["attention_mask"])
    theirs = [expected[f"masked.hidden_states.{i}"][valid] for i in range(4)]
    assert largest_difference([states[valid] for states in padded.hidden_states], theirs) < 1e-4
    torch.testing.assert_close(plain.last_hidden_state, plain.hidden_states[-1])


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_padded_batch_equals_rows_alone(tiny_config, fields):
    """With the GroupNorm kept to valid samples, padding changes nothing for anyone."""
    torch.manual_seed(0)
    model = MERTModel(tiny_config(**fields)).eval()
    lengths = [8000, 5003, 1200]
    batch, mask = torch.zeros(3, 8000), torch.zeros(3, 8000, dtype=torch.long)
    for row, length in enumerate(lengths):
        batch[row, :length], mask[row, :length] = waves(1, length, seed=row)[0], 1
    with torch.no_grad():
        together = model(batch, mask, output_hidden_states=True)
        for row, length in enumerate(lengths):
            alone = model(batch[row : row + 1, :length], output_hidden_states=True)
            frames = model.config.num_frames(length)
            for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(a[row, :frames], b[0], atol=1e-4, rtol=0)


def test_group_norm_flag_reproduces_the_authors_padding_leak(tiny_config):
    torch.manual_seed(0)
    leaking = MERTModel(tiny_config(mask_group_norm=False)).eval()
    batch, mask = waves(1, 8000), torch.ones(1, 8000, dtype=torch.long)
    batch[:, 4000:], mask[:, 4000:] = 0, 0
    with torch.no_grad():
        padded, alone = leaking(batch, mask)[0], leaking(batch[:, :4000])[0]
    assert (padded[:, : alone.shape[1]] - alone).abs().max() > 1e-3


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_eager_and_sdpa_agree(tiny_config, fields):
    torch.manual_seed(0)
    sdpa = MERTModel(tiny_config(**fields, attn_implementation="sdpa")).eval()
    eager = MERTModel(tiny_config(**fields, attn_implementation="eager")).eval()
    eager.load_state_dict(sdpa.state_dict())
    mask = torch.ones(2, 8000, dtype=torch.long)
    mask[1, 5000:] = 0
    with torch.no_grad():
        a, b = (model(waves(), mask)[0] for model in (sdpa, eager))
    valid = sdpa.frame_mask(mask)
    torch.testing.assert_close(a[valid], b[valid], atol=1e-5, rtol=1e-5)


def test_attention_relaxation_is_softmax():
    """Relaxation changes no result in float32, and keeps float16 scores finite that would overflow."""
    scores = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 20
    torch.testing.assert_close(relaxed_softmax(scores / 32, 32.0), scores.softmax(-1), atol=1e-6, rtol=1e-5)
    large = torch.tensor([60000.0, 59000.0]) * 2
    assert torch.isinf(large.half()).any()
    assert torch.isfinite(relaxed_softmax((large / 32).half(), 32.0)).all()


def test_output_attentions_under_sdpa_falls_back(model):
    assert model.config._attn_implementation == "sdpa"
    attentions = model(waves(), output_attentions=True).attentions
    assert [weights.shape for weights in attentions] == [(2, 4, 24, 24)] * 3
    torch.testing.assert_close(attentions[0].sum(-1), torch.ones(2, 4, 24))


def test_tuple_output(model):
    states, hidden_states, mask = model(waves(), output_hidden_states=True, return_dict=False)
    assert states.shape == (2, 24, 32) and len(hidden_states) == 4 and mask.shape == (2, 24)


def test_frame_mask_and_times(model):
    mask = torch.ones(3, 8000, dtype=torch.long)
    mask[1, 720:], mask[2, 400:] = 0, 0
    assert model.frame_mask(mask).sum(1).tolist() == [24, 2, 1]
    times = model.frame_times(24)
    assert times.dtype == torch.float64
    torch.testing.assert_close(times[:2], torch.tensor([200.0, 520.0], dtype=torch.float64) / 24000)


def test_mask_time_indices_hide_the_input(model):
    """The input under the mask has no influence, and the mask embedding has."""
    mask = torch.zeros(1, 24, dtype=torch.bool)
    mask[:] = True
    with torch.no_grad():
        a, b = model(waves(1, seed=1), mask_time_indices=mask)[0], model(waves(1, seed=2), mask_time_indices=mask)[0]
        torch.testing.assert_close(a, b)
        model.masked_spec_embed += 1
        assert (model(waves(1, seed=1), mask_time_indices=mask)[0] - a).abs().max() > 1e-2


def test_spec_augment_only_in_training(tiny_config):
    quiet = {"hidden_dropout": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0}
    model = MERTModel(tiny_config(**quiet, mask_time_prob=0.5, mask_time_length=2, mask_feature_prob=0.3))
    clean = model.eval()(waves())[0]
    torch.testing.assert_close(model.eval()(waves())[0], clean)
    assert (model.train()(waves())[0] - clean).abs().max() > 1e-3
    model.config.apply_spec_augment = False
    torch.testing.assert_close(model(waves())[0], clean)


def test_span_mask_distribution(generator):
    """Number of spans, their length, and the row's end, as fairseq's static masks have them."""
    lengths = torch.tensor([374, 100, 8, 3, 0])
    masks = torch.stack([draw_span_mask(lengths, 374, 0.8, 5, 2, generator) for _ in range(2000)])
    for row, length in enumerate(lengths.tolist()):
        assert not masks[:, row, length:].any()
    # 0.8 x 374 / 5 = 59.84 of 369 places start a span; a frame stays open if none of the last five places does
    assert masks[:, 0].float().mean().item() == pytest.approx(1 - (1 - 59.84 / 369) ** 5, abs=0.01)
    assert (masks[:, 2].sum(1) >= 5).all()
    assert not masks[:, 4].any()


def test_layerdrop_bypasses_whole_layers_and_keeps_gradients(tiny_config):
    """A dropped layer passes its input on, and its parameters still get a gradient: DDP stays in step."""
    model = MERTModel(tiny_config(layerdrop=1.0, mask_time_prob=0.0, hidden_dropout=0.0)).train()
    outputs = model(waves(), output_hidden_states=True)
    torch.testing.assert_close(outputs.hidden_states[0], outputs.hidden_states[-1])
    outputs[0].sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.encoder.layers.parameters())


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_repeats_the_same_network(tiny_config, reentrant):
    """Same loss and gradients with and without, layerdrop and dropout on."""
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = MERTModel(tiny_config(layerdrop=0.5)).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(1)
        model(waves())[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], atol=1e-6, rtol=1e-4)


def test_deepnorm_scales_initial_weights(tiny_config):
    """ff, out and v start (8N)^(1/4) smaller (DeepNorm, table 2); q and k do not."""
    torch.manual_seed(0)
    attention = MERTModel(tiny_config(deepnorm=True, hidden_size=256)).encoder.layers[0].attention
    gain = (8 * 3) ** -0.25
    assert attention.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert attention.v_proj.weight.std().item() == pytest.approx(0.02 * gain, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model, dtype):
    mask = torch.ones(2, 8000, dtype=torch.long)
    mask[1, 4000:] = 0
    with torch.no_grad():
        reference = model(waves(), mask)[0]
        half = copy.deepcopy(model).to(dtype)(waves(), mask)[0]
    assert half.dtype == dtype and torch.isfinite(half).all()
    valid = model.frame_mask(mask)
    assert torch.nn.functional.cosine_similarity(half[valid].float(), reference[valid], dim=-1).min() > 0.99


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.zeros(2, 8000, dtype=torch.int16), TypeError, "given torch.int16"),
        ([[0.0] * 8000], TypeError, "given list"),
        (torch.zeros(8000), ValueError, "must have shape (batch, samples)"),
        (torch.zeros(1, 2, 8000), ValueError, "Mix channels to mono"),
        (torch.zeros(1, 399), ValueError, "one frame needs 400"),
    ],
)
def test_bad_input_names_the_remedy(model, inputs, error, message):
    with pytest.raises(error, match=re.escape(message)):
        model(inputs)


@pytest.mark.parametrize("training", [False, True])
def test_no_value_is_read_from_the_device(model, training, monkeypatch):
    """Each of these operations would make the host wait for an accelerator; extractor and collators check values."""
    monkeypatch.setattr("mert_hf.modeling.modeling_mert.is_readable", lambda mask: mask.device.type != "cpu")

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
            return func(*args, **(kwargs or {}))

    mask = torch.ones(2, 8000, dtype=torch.long)
    with torch.no_grad(), Recorder():
        model.train(training)(waves(), mask, output_hidden_states=True)


def test_bad_masks_name_the_remedy(model):
    with pytest.raises(ValueError, match="attention_mask must have the shape of input_values"):
        model(waves(), torch.ones(2, 24))
    with pytest.raises(ValueError, match=re.escape("mask_time_indices must have shape (2, 24)")):
        model(waves(), mask_time_indices=torch.zeros(2, 25, dtype=torch.bool))


def test_compiles_without_graph_breaks(model):
    mask = torch.ones(2, 8000, dtype=torch.long)
    mask[1, 5000:] = 0
    explanation = torch._dynamo.explain(model)(waves(), mask, output_hidden_states=True)
    assert explanation.graph_break_count == 0
    torch._dynamo.reset()


def test_onnx_with_dynamic_time(model, tmp_path):
    """The exported graph gives the model's states in onnxruntime for other lengths than it was traced with."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    path = tmp_path / "mert.onnx"
    dimensions = {"input_values": {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=800)}}
    torch.onnx.export(
        model, (waves(),), path, input_names=["input_values"], dynamo=True, dynamic_shapes=dimensions, verbose=False
    )
    session = onnxruntime.InferenceSession(path)
    for samples in (8000, 11000):
        (states, *_) = session.run(None, {"input_values": waves(3, samples).numpy()})
        torch.testing.assert_close(torch.from_numpy(states), model(waves(3, samples))[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("generation", [1, 2])
def test_left_padding_is_refused(generation, tiny_config, tiny_config2):
    model = (MERTModel(tiny_config()) if generation == 1 else MERT2Model(tiny_config2())).eval()
    mask = torch.ones(2, 12000, dtype=torch.long)
    mask[1, 9000:] = 0
    model(torch.zeros(2, 12000), attention_mask=mask)
    for wrong in (mask.flip(1), mask.flip(1).bool()):
        with pytest.raises(ValueError, match="right padding only"):
            model(torch.zeros(2, 12000), attention_mask=wrong)
