"""The two classification heads: losses by problem type, weighted layer sum, freezing, padding."""

import pytest
import torch

from mert_hf import MERTForAudioFrameClassification, MERTForSequenceClassification


def waves(batch=2):
    return torch.randn(batch, 8000, generator=torch.Generator().manual_seed(0)) * 0.3


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("num_labels", "labels", "problem_type"),
    [
        (4, torch.tensor([0, 3]), "single_label_classification"),
        (4, torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]]), "multi_label_classification"),
        (1, torch.tensor([0.3, -1.0]), "regression"),
    ],
)
def test_problem_types(tiny_config, num_labels, labels, problem_type, weighted):
    torch.manual_seed(0)
    model = MERTForSequenceClassification(tiny_config(num_labels=num_labels, use_weighted_layer_sum=weighted))
    outputs = model(waves(), labels=labels)
    assert model.config.problem_type == problem_type
    assert outputs.logits.shape == (2, num_labels)
    outputs.loss.backward()
    assert model.classifier.weight.grad.abs().sum() > 0
    assert not weighted or model.layer_weights.grad.abs().sum() > 0


def test_two_regression_targets(tiny_config):
    model = MERTForSequenceClassification(tiny_config(num_labels=2, problem_type="regression")).eval()
    targets = torch.tensor([[0.5, 0.1], [1.0, 0.0]])
    outputs = model(waves(), labels=targets)
    torch.testing.assert_close(outputs.loss, (outputs.logits - targets).square().mean())


def test_padding_does_not_change_a_prediction(tiny_config):
    torch.manual_seed(0)
    model = MERTForSequenceClassification(tiny_config(use_weighted_layer_sum=True)).eval()
    batch, mask = waves(), torch.ones(2, 8000, dtype=torch.long)
    batch[1, 5000:], mask[1, 5000:] = 0, 0
    with torch.no_grad():
        torch.testing.assert_close(model(batch, mask).logits[1:], model(batch[1:, :5000]).logits, atol=1e-5, rtol=1e-4)


def test_freezing(tiny_config):
    model = MERTForSequenceClassification(tiny_config())
    model.freeze_feature_encoder()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith("mert.feature_extractor.") for name in frozen)
    model.train()(waves(), labels=torch.tensor([0, 1])).loss.backward()
    model.freeze_base_model()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "projector",
        "classifier",
    }


def test_hidden_states_are_returned_only_on_request(tiny_config):
    model = MERTForSequenceClassification(tiny_config(use_weighted_layer_sum=True)).eval()
    assert model(waves()).hidden_states is None
    assert len(model(waves(), output_hidden_states=True).hidden_states) == 4


def test_frame_classification_losses(tiny_config):
    torch.manual_seed(0)
    model = MERTForAudioFrameClassification(tiny_config(num_labels=3, use_weighted_layer_sum=True)).eval()
    classes = torch.randint(3, (2, 24), generator=torch.Generator().manual_seed(0))
    by_class = model(waves(), labels=classes)
    assert by_class.logits.shape == (2, 24, 3)
    one_hot = torch.nn.functional.one_hot(classes, 3)
    torch.testing.assert_close(model(waves(), labels=one_hot).loss, by_class.loss)
    expected = torch.nn.functional.cross_entropy(by_class.logits.flatten(0, 1), classes.flatten())
    torch.testing.assert_close(by_class.loss, expected)


def test_frame_labels_of_padding_do_not_count(tiny_config):
    model = MERTForAudioFrameClassification(tiny_config(num_labels=2, problem_type="multi_label_classification")).eval()
    mask = torch.ones(2, 8000, dtype=torch.long)
    mask[1, 4000:] = 0
    labels = torch.zeros(2, 24, 2)
    reference = model(waves(), mask, labels=labels).loss
    labels[1, 13:] = 1.0
    torch.testing.assert_close(model(waves(), mask, labels=labels).loss, reference)


def test_frame_labels_of_another_length_are_refused(tiny_config):
    model = MERTForAudioFrameClassification(tiny_config())
    with pytest.raises(ValueError, match=r"labels must have the shape \(2, 24\)"):
        model(waves(), labels=torch.zeros(2, 25, dtype=torch.long))
