"""MERTForPreTraining: the objective of METHOD section 2, its memory-saving form, its errors."""

import re

import pytest
import torch
from torch import nn

from mert_hf import MERTForPreTraining
from mert_hf.modeling.modeling_mert import chunked_codebook_sums, codebook_sums, scale_gradient


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "input_values": torch.randn(3, 8000, generator=generator) * 0.3,
        "mask_time_indices": torch.rand(3, 24, generator=generator) < 0.5,
        "codes": torch.randint(17, (3, 3, 25), generator=generator),
        "cqt": torch.rand(3, 26, 84, generator=generator),
    }


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return MERTForPreTraining(tiny_config(num_special_codes=4)).eval()


def expanded_loss(model, batch, frames=None):
    """The objective written out frame by frame, every code's vector next to every frame's, as fairseq computes it.

    It is averaged over the masked frames, or those given, (batch, frames) bool."""
    hidden = model.mert(batch["input_values"], mask_time_indices=batch["mask_time_indices"])[0]
    features = model.mert.feature_extractor(batch["input_values"])
    mask, config = batch["mask_time_indices"] if frames is None else frames, model.config
    losses = []
    for k, projection in enumerate(model.codebook_projections):
        states = projection(hidden[mask])
        table = model.codebook_embeddings[k]
        logits = nn.functional.cosine_similarity(states[:, None], table[None], dim=-1) / config.logit_temperature
        targets = batch["codes"][:, k, : mask.shape[1]][mask] + config.num_special_codes
        losses.append(nn.functional.cross_entropy(logits, targets))
    cqt = nn.functional.mse_loss(model.cqt_head(hidden[mask]), batch["cqt"][:, : mask.shape[1]][mask])
    return sum(losses) + cqt + 10 * features.square().mean(), losses, cqt


def test_objective(model, batch):
    outputs = model(**batch)
    total, losses, cqt = expanded_loss(model, batch)
    torch.testing.assert_close(outputs.loss, total)
    torch.testing.assert_close(outputs.codebook_losses, torch.stack(losses))
    torch.testing.assert_close(outputs.cqt_loss, cqt)
    assert outputs.codebook_accuracies.shape == (3,)


def test_unmasked_frames_enter_with_their_weight(model, batch):
    """One mean over all frames, masked ones weighing 1, the others 0.25; the reported parts are the masked ones'."""
    mask = batch["mask_time_indices"]
    reference = model(**batch)
    penalty = model.config.feature_penalty_weight * reference.feature_penalty
    model.config.unmasked_loss_weight = 0.25
    outputs = model(**batch)
    masked, others = (expanded_loss(model, batch, frames)[0] - penalty for frames in (mask, ~mask))
    weights = torch.tensor([mask.sum(), 0.25 * (~mask).sum()])
    expected = (weights[0] * masked + weights[1] * others) / weights.sum() + penalty
    torch.testing.assert_close(outputs.loss, expected)
    torch.testing.assert_close(outputs.codebook_losses, reference.codebook_losses)
    torch.testing.assert_close(outputs.cqt_loss, reference.cqt_loss)


@pytest.mark.parametrize("unmasked", [0.0, 0.5])
def test_shares_of_parts_sum_to_the_loss_of_the_whole_batch(model, batch, unmasked):
    """With the frames of the whole given, each part returns its share, however unequal the parts are."""
    model.config.unmasked_loss_weight = unmasked
    whole = model(**batch).loss
    totals = torch.tensor([float(batch["mask_time_indices"].sum()), float(batch["mask_time_indices"].numel())])
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 1), slice(1, 3))]
    shares = [model(**part, num_items_in_batch=totals).loss for part in parts]
    torch.testing.assert_close(sum(shares), whole)


def test_padding_is_no_unmasked_frame(model, batch):
    model.config.unmasked_loss_weight = 1.0
    attention_mask = torch.ones(3, 8000, dtype=torch.long)
    attention_mask[2, 4000:] = 0
    reference = model(**batch, attention_mask=attention_mask).loss
    batch["cqt"][2, 12:] = 99.0
    torch.testing.assert_close(model(**batch, attention_mask=attention_mask).loss, reference)


def test_without_targets_there_is_no_loss(model, batch):
    outputs = model(batch["input_values"])
    assert outputs.loss is None and outputs.feature_penalty > 0


@pytest.mark.parametrize("kept", ["codes", "cqt"])
def test_one_teacher_alone(model, batch, kept):
    outputs = model(
        **{name: value for name, value in batch.items() if name in ("input_values", "mask_time_indices", kept)}
    )
    assert torch.isfinite(outputs.loss)
    assert (outputs.codebook_losses is None) == (kept == "cqt") and (outputs.cqt_loss is None) == (kept == "codes")


def test_tied_projection(tiny_config, batch):
    model = MERTForPreTraining(tiny_config(untie_codebook_projections=False))
    assert len(model.codebook_projections) == 1
    assert model(**batch).codebook_losses.shape == (3,)


def test_chunks_give_the_same_sums_and_gradients():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(50, (4, 100), generator=generator)
    targets[0, :30] = -100
    results = []
    for function in (codebook_sums, lambda *args: chunked_codebook_sums(*args, max_logits=4 * 50 * 7)):
        states = torch.randn(4, 100, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        table = torch.randn(4, 50, 8, generator=torch.Generator().manual_seed(2), requires_grad=True)
        losses, hits = function(states, table, targets, 0.1)
        losses.sum().backward()
        results.append((losses, hits, states.grad, table.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)


def test_ignored_codes_and_padding_do_not_count(model, batch):
    """-100 and frames beyond the clip leave the loss alone."""
    mask = torch.ones(3, 8000, dtype=torch.long)
    mask[2, 4000:] = 0
    reference = model(**batch, attention_mask=mask)
    batch["codes"][2, :, 12:] = -100
    batch["cqt"][2, 12:] = 99.0
    changed = model(**batch, attention_mask=mask)
    torch.testing.assert_close(changed.loss, reference.loss)
    batch["codes"][0, 1] = -100
    assert not torch.isclose(model(**batch, attention_mask=mask).codebook_losses[1], reference.codebook_losses[1])


def test_no_masked_frame_gives_a_finite_loss(model, batch):
    batch["mask_time_indices"][:] = False
    outputs = model(**batch)
    assert torch.isfinite(outputs.loss)
    outputs.loss.backward()


def test_scale_gradient_changes_only_the_gradient():
    tensor = torch.randn(5, requires_grad=True)
    scaled = scale_gradient(tensor, 0.1)
    assert torch.equal(scaled, tensor)
    scaled.sum().backward()
    torch.testing.assert_close(tensor.grad, torch.full((5,), 0.1))


def test_feature_grad_mult_reaches_the_convolutions_only(tiny_config, batch):
    gradients = []
    for factor in (1.0, 0.1):
        torch.manual_seed(0)
        model = MERTForPreTraining(tiny_config(feature_grad_mult=factor)).eval()
        model(**batch).loss.backward()
        gradients.append((model.mert.feature_extractor.conv_layers[3].conv.weight.grad, model.cqt_head.weight.grad))
    torch.testing.assert_close(gradients[1][0], gradients[0][0] * 0.1, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(gradients[1][1], gradients[0][1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_and_losses_are_computed_in_float32_under_autocast(model, batch, dtype):
    """The same hidden states give the same losses and gradients; half precision would be off by 0.01 to 0.1."""
    hidden = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(1))
    mask = batch["mask_time_indices"]
    results = []
    for autocast in (False, True):
        states = hidden.clone().requires_grad_()
        model.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            losses = model._losses(states, None, mask, batch["codes"], batch["cqt"], torch.zeros(()))
        losses["loss"].backward()
        gradients = [
            model.codebook_embeddings.grad,
            model.codebook_projections[0].weight.grad,
            model.cqt_head.bias.grad,
        ]
        results.append([*losses.values(), states.grad, *(gradient.clone() for gradient in gradients)])
    for plain, cast in zip(*results, strict=True):
        assert cast.dtype == torch.float32
        torch.testing.assert_close(cast, plain, atol=0, rtol=0)


def test_bfloat16_autocast_trains(model, batch):
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_bfloat16_model_computes_the_loss_in_float32(model, batch):
    loss = model(**batch).loss
    half = model.bfloat16()(**batch)
    assert half.loss.dtype == half.codebook_losses.dtype == torch.float32
    torch.testing.assert_close(half.loss, loss, atol=0, rtol=0.02)


@pytest.mark.parametrize("tied", [False, True])
def test_unequal_codebooks(tiny_config, batch, tied):
    """Each codebook is scored over its own codes and the special ones: a cross-entropy written out for each."""
    torch.manual_seed(0)
    sizes = [17, 5, 11]
    config = tiny_config(
        num_codebooks=3,
        codebook_sizes=sizes,
        num_special_codes=4,
        untie_codebook_projections=not tied,
        feature_penalty_weight=0.0,
        cqt_loss_weight=0.0,
    )
    model = MERTForPreTraining(config).eval()
    assert model.codebook_embeddings.shape == (sum(sizes) + 3 * 4, 16)
    batch["codes"] = batch["codes"] % torch.tensor(sizes)[:, None]
    outputs = model(**batch)
    mask = batch["mask_time_indices"]
    states = model.mert(batch["input_values"], mask_time_indices=mask)[0][mask]
    start, losses = 0, []
    for k, size in enumerate(sizes):
        table = model.codebook_embeddings[start : start + size + 4]
        start += size + 4
        projected = model.codebook_projections[0 if tied else k](states)
        logits = nn.functional.cosine_similarity(projected[:, None], table[None], dim=-1) / config.logit_temperature
        losses.append(nn.functional.cross_entropy(logits, batch["codes"][:, k, :24][mask] + 4))
    torch.testing.assert_close(outputs.codebook_losses, torch.stack(losses))
    torch.testing.assert_close(outputs.loss, sum(losses))
    with pytest.raises(IndexError, match="out of bounds"):
        model(**{**batch, "codes": batch["codes"] + 6})


def test_unequal_codebooks_in_chunks():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 40, 8, generator=generator)
    tables = [torch.randn(size, 8, generator=generator) for size in (9, 4)]
    targets = torch.stack([torch.randint(size, (40,), generator=generator) for size in (9, 4)])
    losses, hits = chunked_codebook_sums(states, tables, targets, 0.1, max_logits=50)
    for k, table in enumerate(tables):
        expected = codebook_sums(states[k : k + 1], table[None], targets[k : k + 1], 0.1)
        torch.testing.assert_close(losses[k], expected[0][0])
        assert hits[k] == expected[1][0]


@pytest.mark.parametrize("sizes", [None, [17, 5]])
def test_initial_embeddings_of_the_codes(tiny_config, tmp_path, sizes):
    fields = {"codebook_sizes": sizes, "num_codebooks": 2, "codebook_dim": 64}
    uniform = MERTForPreTraining(tiny_config(**fields, codebook_init="uniform")).codebook_embeddings
    assert 0 <= uniform.min() < 0.1 and 0.9 < uniform.max() < 1
    model = MERTForPreTraining(tiny_config(**fields))
    assert model.codebook_embeddings.std().item() == pytest.approx(0.02, rel=0.1)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(MERTForPreTraining.from_pretrained(tmp_path).state_dict(), model.state_dict())


def test_compiles(model, batch):
    with torch.no_grad():
        torch.testing.assert_close(
            torch.compile(model, backend="eager")(**batch).loss, model(**batch).loss, atol=1e-5, rtol=1e-5
        )
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.pop("mask_time_indices"), "pass mask_time_indices"),
        (
            lambda b: b.update(codes=b["codes"][:, :2]),
            "codes must have shape (batch=3, codebooks=3, at least 24 frames)",
        ),
        (lambda b: b.update(codes=b["codes"][..., :20]), "at least 24 frames"),
        (lambda b: b.update(cqt=b["cqt"][..., :80]), "bins=84"),
    ],
)
def test_wrong_targets_name_the_remedy(model, batch, change, message):
    change(batch)
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**batch)
