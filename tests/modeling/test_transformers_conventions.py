"""Conventions of transformers, accelerate and PEFT for every model, held by the classes of both generations."""

import copy
import inspect

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import Trainer, TrainingArguments
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mert_hf import (
    MERT2Config,
    MERT2ForAudioFrameClassification,
    MERT2ForPreTraining,
    MERT2ForSequenceClassification,
    MERT2Model,
    MERTConfig,
    MERTForAudioFrameClassification,
    MERTForPreTraining,
    MERTForSequenceClassification,
    MERTModel,
)

TRANSFORMERS = Version(transformers.__version__)
SAMPLES = 4000
FIRST = [MERTModel, MERTForPreTraining, MERTForSequenceClassification, MERTForAudioFrameClassification]
SECOND = [MERT2Model, MERT2ForPreTraining, MERT2ForSequenceClassification, MERT2ForAudioFrameClassification]
every_class = pytest.mark.parametrize("model_class", FIRST + SECOND)
every_encoder = pytest.mark.parametrize("model_class", [MERTModel, MERT2Model])


@pytest.fixture
def config_for(tiny_config, tiny_config2):
    """The tiny configuration of a class's generation."""
    builders = {MERTConfig: tiny_config, MERT2Config: tiny_config2}
    return lambda model_class, **fields: builders[model_class.config_class](**fields)


COSINE = {MERT2ForPreTraining: {"codebook_prediction": "cosine"}}
SILENT_MASKS = {MERT2ForPreTraining: {"mask_noise_std": 0.0}}  # else each call masks with other noise


def waves(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.3


def targets(model_class, config: MERTConfig | MERT2Config, batch: int = 3) -> dict:
    """The inputs that make the class return a loss."""
    frames = config.num_frames(SAMPLES)
    if model_class in (MERTForPreTraining, MERT2ForPreTraining):
        return {
            "mask_time_indices": torch.ones(batch, frames, dtype=torch.bool),
            "codes": torch.zeros(batch, config.num_codebooks, frames, dtype=torch.long),
            "cqt": torch.zeros(batch, frames, config.cqt_bins),
        }
    if model_class in (MERTForSequenceClassification, MERT2ForSequenceClassification):
        return {"labels": torch.zeros(batch, dtype=torch.long)}
    if model_class in (MERTForAudioFrameClassification, MERT2ForAudioFrameClassification):
        return {"labels": torch.zeros(batch, frames, dtype=torch.long)}
    return {}


@every_class
def test_arguments_start_alike(model_class):
    names = list(inspect.signature(model_class.forward).parameters)[1:]
    third = "output_hidden_states" if model_class is MERT2Model else "mask_time_indices"  # as the authors' own
    assert names[:3] == ["input_values", "attention_mask", third]
    assert {"mask_time_indices", "output_attentions", "output_hidden_states", "return_dict"} <= set(names)
    assert model_class.main_input_name == "input_values"


@every_class
def test_tuple_and_dictionary_agree_and_the_loss_comes_first(config_for, model_class):
    torch.manual_seed(0)
    model = model_class(config_for(model_class, **SILENT_MASKS.get(model_class, {}))).eval()
    inputs = {"output_hidden_states": True, "output_attentions": True, **targets(model_class, model.config)}
    with torch.no_grad():
        named = model(waves(), **inputs)
        plain = model(waves(), return_dict=False, **inputs)
    declared = [name for name in type(named).__dataclass_fields__ if name in named]
    assert list(named) == declared and len(plain) == len(declared)
    if model_class not in (MERTModel, MERT2Model):
        assert declared[0] == "loss"
    for ours, theirs in zip(plain, named.values(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("model_class", [MERTForPreTraining, MERT2ForPreTraining])
def test_pre_training_model_without_targets_returns_its_states(config_for, model_class):
    model = model_class(config_for(model_class)).eval()
    outputs = model(waves(), output_hidden_states=True)
    assert "loss" not in outputs
    torch.testing.assert_close(outputs.last_hidden_state, outputs.hidden_states[-1])
    assert "last_hidden_state" not in model(waves(), **targets(model_class, model.config))


@every_class
def test_configuration_sets_what_the_call_leaves_open(config_for, model_class):
    config = config_for(model_class, output_hidden_states=True, output_attentions=True, attn_implementation="eager")
    model = model_class(config).eval()
    outputs = model(waves())
    assert len(outputs.hidden_states) == (4 if model_class in FIRST else 3) and len(outputs.attentions) == 3
    assert "hidden_states" not in model(waves(), output_hidden_states=False)
    model.config.return_dict = False
    assert isinstance(model(waves()), tuple)


@every_class
def test_gradients_reach_first_states_and_attentions(config_for, model_class):
    fields = {"layerdrop": 0.0} if model_class in FIRST else {}
    model = model_class(config_for(model_class, attn_implementation="eager", **fields))
    outputs = model(
        waves(), output_hidden_states=True, output_attentions=True, **targets(model_class, model.config)
    )  # fmt: skip
    outputs.hidden_states[0].retain_grad()
    outputs.attentions[0].retain_grad()
    outputs[0].flatten()[0].backward(retain_graph=True)
    assert outputs.hidden_states[0].grad.any() and outputs.attentions[0].grad.any()


@every_class
def test_a_row_does_not_depend_on_the_batch(config_for, model_class):
    model = model_class(config_for(model_class)).eval()
    with torch.no_grad():
        batch = model(waves(), output_hidden_states=True)
        alone = model(waves()[:1], output_hidden_states=True)
    pairs = list(zip(batch.hidden_states, alone.hidden_states, strict=True))
    pairs += [(batch[name], alone[name]) for name in ("last_hidden_state", "logits") if name in batch]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours[:1], theirs, atol=1e-5, rtol=1e-4)


@every_class
def test_built_on_meta_and_initialized_later(config_for, model_class):
    """As FSDP and DeepSpeed build it: nothing may stay on meta or as memory was found."""
    with torch.device("meta"):
        model = model_class(config_for(model_class, use_weighted_layer_sum=True, **COSINE.get(model_class, {})))
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(float("nan"))
    model.apply(model._init_weights)
    assert not [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]


def test_weights_given_as_a_dictionary(tiny_config):
    model = MERTModel(tiny_config())
    again = MERTModel.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight)
    incomplete = {name: weight for name, weight in model.state_dict().items() if "encoder.layers.2." not in name}
    with pytest.raises(ValueError, match="missing 16"):
        MERTModel.from_pretrained(None, config=model.config, state_dict=incomplete)


@every_class
def test_attention_can_be_changed_at_run_time(config_for, model_class):
    model = model_class(config_for(model_class, attn_implementation="eager")).eval()
    if not hasattr(model, "set_attn_implementation"):
        pytest.skip("transformers 4.48 chooses the attention when the model is built")
    with torch.no_grad():
        eager = model(waves(), output_hidden_states=True).hidden_states[-1]
        model.set_attn_implementation("sdpa")
        assert model.config._attn_implementation == "sdpa"
        sdpa = model(waves(), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(eager, sdpa, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="foo"):
        model.set_attn_implementation("foo")
    assert model.config._attn_implementation == "sdpa"


@every_class
@pytest.mark.parametrize("checkpointing", [False, True])
def test_further_arguments_reach_the_attention_function(config_for, model_class, monkeypatch, checkpointing):
    """The promise of `_supports_attention_backend`: backends get their arguments, such as lengths of packed rows."""
    model = model_class(config_for(model_class, attn_implementation="sdpa")).train()
    assert model._supports_attention_backend
    if checkpointing:
        model.gradient_checkpointing_enable()
    seen, original = [], ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(*args, **kwargs):
        seen.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", attention)
    model(waves(), cu_seq_lens_q="lengths", is_causal=True, **targets(model_class, model.config))
    assert len(seen) == model.config.num_hidden_layers
    assert all(kwargs["cu_seq_lens_q"] == "lengths" and kwargs["is_causal"] is False for kwargs in seen)


@every_class
def test_stock_trainer_divides_the_loss_by_the_accumulated_batches(config_for, model_class, tmp_path):
    """The losses are means: Trainer must not take **kwargs for a loss that is divided by num_items_in_batch."""
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    trainer = Trainer(model=model_class(config_for(model_class)), args=arguments)
    assert trainer.model_accepts_loss_kwargs is False


@every_class
def test_checkpointing_switches_every_layer(config_for, model_class):
    model = model_class(config_for(model_class))
    layers = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
    others = 1 if model_class in FIRST else sum(model.config.subsampling_depths)  # the convolutions
    assert len(layers) == model.config.num_hidden_layers + others
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable()
    assert all(layer.gradient_checkpointing for layer in layers)
    model.gradient_checkpointing_disable()
    assert not any(layer.gradient_checkpointing for layer in layers)


@every_encoder
@pytest.mark.parametrize("reentrant", [False, True])
def test_adapters_in_a_frozen_model_learn_under_checkpointing(config_for, reentrant, model_class):
    """The weights that LoRA leaves trainable get the gradients that they get without checkpointing."""
    torch.manual_seed(0)
    quiet = {"hidden_dropout": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0}
    if model_class in FIRST:
        quiet |= {"layerdrop": 0.0, "mask_time_prob": 0.0}
    model = model_class(config_for(model_class, **quiet)).train().requires_grad_(False)
    adapted = ("q_proj.weight", "v_proj.weight", "query_proj.weight", "w_1.weight")
    adapters = {name: p for name, p in model.named_parameters() if name.endswith(adapted)}
    gradients = []
    for checkpointing in (False, True):
        for parameter in adapters.values():
            parameter.requires_grad_(True)
            parameter.grad = None
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(waves())[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in adapters.items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
    model.disable_input_require_grads()


@pytest.mark.parametrize("where", ["encoder.layers.1", "encoder"])
def test_offloaded_weights_come_back_for_the_call(tiny_checkpoint, tmp_path, where):
    """With part of the model on disk the states stay the same, the position embedding's included."""
    if TRANSFORMERS < Version("4.50") and where == "encoder":
        pytest.skip("transformers 4.48 looks weights on disk up by the checkpoint's names, not by the model's")
    whole = MERTModel.from_pretrained(tiny_checkpoint).eval()
    places = {"feature_extractor": "cpu", "feature_projection": "cpu", "masked_spec_embed": "cpu", "encoder": "disk"}
    if where != "encoder":
        del places["encoder"]
        places |= {"encoder.pos_conv_embed": "cpu", "encoder.layer_norm": "cpu", where: "disk"}
        places |= {"encoder.layers.0": "cpu", "encoder.layers.2": "cpu"}
    model = MERTModel.from_pretrained(tiny_checkpoint, device_map=places, offload_folder=tmp_path).eval()
    assert any(parameter.is_meta for parameter in model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(model(waves())[0], whole(waves())[0])


def test_another_number_of_classes_only_where_it_is_allowed(tiny_config, tmp_path):
    MERTForSequenceClassification(tiny_config(num_labels=3)).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        MERTForSequenceClassification.from_pretrained(tmp_path, num_labels=7)
    model = MERTForSequenceClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert model.eval()(waves()).logits.shape == (3, 7)
    assert torch.isfinite(model.classifier.weight).all() and not model.classifier.bias.any()


def test_mis_shaped_position_embedding_is_initialized_where_it_is_allowed(tiny_checkpoint):
    model = MERTModel.from_pretrained(tiny_checkpoint, num_conv_pos_embeddings=8, ignore_mismatched_sizes=True)
    conv = model.encoder.pos_conv_embed.conv
    norm = torch.linalg.vector_norm(conv.weight_v, dim=(0, 1), keepdim=True)
    torch.testing.assert_close(conv.weight_g, norm)
    assert torch.isfinite(model.eval()(waves())[0]).all()


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem_type"),
    [
        (3, torch.tensor([0, 2, 1]), "single_label_classification"),
        (3, torch.tensor([[0], [2], [1]]), "single_label_classification"),
        (3, torch.eye(3), "multi_label_classification"),
        (3, torch.eye(3, dtype=torch.long), "multi_label_classification"),
        (1, torch.tensor([0.1, 0.2, 0.3]), "regression"),
        (1, torch.tensor([[0.1], [0.2], [0.3]]), "regression"),
    ],
)
def test_problem_follows_from_the_labels(tiny_config, num_labels, labels, problem_type):
    model = MERTForSequenceClassification(tiny_config(num_labels=num_labels)).eval()
    loss = model(waves(), labels=labels).loss
    assert model.config.problem_type == problem_type and torch.isfinite(loss)
    stated = MERTForSequenceClassification(tiny_config(num_labels=num_labels, problem_type=problem_type)).eval()
    stated.load_state_dict(model.state_dict())
    torch.testing.assert_close(stated(waves(), labels=labels).loss, loss)


@every_encoder
def test_traces_to_torchscript(config_for, model_class):
    fields = {"return_dict": False} if TRANSFORMERS >= Version("5") else {"torchscript": True}
    model = model_class(config_for(model_class, **fields)).eval()
    with torch.no_grad():
        traced = torch.jit.trace(model, waves(), check_trace=False)
        torch.testing.assert_close(traced(waves(2))[0], model(waves(2))[0], atol=1e-5, rtol=1e-4)


def test_copies_are_independent(tiny_config):
    model = MERTModel(tiny_config()).eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = model(waves())[0]
        twin.masked_spec_embed.add_(1.0)
        twin.encoder.layers[0].attention.q_proj.weight.zero_()
        torch.testing.assert_close(model(waves())[0], before)
        assert (twin(waves())[0] - before).abs().max() > 1e-4


@pytest.mark.parametrize("config_class", [MERTConfig, MERT2Config])
def test_common_configuration_fields_survive_a_round_trip(tmp_path, config_class):
    fields = {
        "return_dict": False,
        "output_hidden_states": True,
        "output_attentions": True,
        "id2label": {0: "rock", 1: "jazz"},
        "label2id": {"rock": 0, "jazz": 1},
        "problem_type": "multi_label_classification",
        "architectures": ["MERTModel"],
    }
    config = config_class(**fields)
    config.save_pretrained(tmp_path / "inner")
    again = config_class.from_pretrained(tmp_path, subfolder="inner")
    assert {name: getattr(again, name) for name in fields} == fields
    again.num_labels = 5
    assert len(again.id2label) == len(again.label2id) == 5
