# Copyright 2026 The mert_hf authors and the HuggingFace Inc. team. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Testing suite for the PyTorch MERT model."""

import unittest

from transformers import MertConfig, is_torch_available
from transformers.testing_utils import require_torch, torch_device

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, floats_tensor, random_attention_mask
from ...test_pipeline_mixin import PipelineTesterMixin


if is_torch_available():
    import torch

    from transformers import MertForAudioFrameClassification, MertForSequenceClassification, MertModel


# The sizes of all models here, and the results of mert_hf's own classes with the weights of `set_weights`.
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_dim": (32, 32, 32),
    "conv_stride": (4, 4, 4),
    "conv_kernel": (8, 8, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_length": 2,
    "layerdrop": 0.0,
}
EXPECTED_SINGLE = [[2.5659, 0.5292, -0.1174, 1.4151], [2.5674, 0.5238, -0.122, 1.3996]]
EXPECTED_BATCH = [
    [[2.5659, 0.5292, -0.1174, 1.4151], [2.5674, 0.5238, -0.122, 1.3996]],
    [[2.5642, 0.5357, -0.118, 1.4127], [2.57, 0.525, -0.1182, 1.4064]],
]
EXPECTED_CLIP_LOGITS = [[4.8391, 1.0911], [4.8394, 1.091]]
EXPECTED_FRAME_LOGITS = [[[3.0651, -0.092], [3.0623, -0.0876]], [[3.063, -0.0917], [3.0613, -0.0878]]]


class MertModelTester:
    config_class = MertConfig

    def __init__(self, parent, batch_size=3, seq_length=1024, is_training=True):
        self.parent = parent
        self.batch_size = batch_size
        self.seq_length = seq_length
        self.is_training = is_training
        self.hidden_size = TINY["hidden_size"]
        self.num_hidden_layers = TINY["num_hidden_layers"]
        self.num_attention_heads = TINY["num_attention_heads"]
        self.encoder_seq_length = 14

    def get_config(self):
        return self.config_class(**TINY)

    def prepare_config_and_inputs_for_common(self):
        attention_mask = random_attention_mask([self.batch_size, self.seq_length])
        attention_mask[:, :400] = 1  # one frame at least
        attention_mask = attention_mask.sort(dim=1, descending=True).values  # padding is on the right
        input_values = floats_tensor([self.batch_size, self.seq_length], scale=1.0)
        return self.get_config(), {"input_values": input_values, "attention_mask": attention_mask}


@require_torch
class MertModelTest(ModelTesterMixin, PipelineTesterMixin, unittest.TestCase):
    all_model_classes = (
        (MertModel, MertForSequenceClassification, MertForAudioFrameClassification) if is_torch_available() else ()
    )
    pipeline_model_mapping = (
        {"audio-classification": MertForSequenceClassification, "feature-extraction": MertModel}
        if is_torch_available()
        else {}
    )
    model_tester_class = MertModelTester
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = self.model_tester_class(self)
        self.config_tester = ConfigTester(
            self, config_class=self.model_tester.config_class, has_text_modality=False, hidden_size=36
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class.__name__.endswith("ForAudioFrameClassification"):
            shape = (self.model_tester.batch_size, self.model_tester.encoder_seq_length)
            inputs["labels"] = torch.zeros(shape, dtype=torch.long, device=torch_device)
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = self.all_model_classes[0](config).to(torch_device).eval()
        shape = (self.model_tester.batch_size, self.model_tester.encoder_seq_length, config.hidden_size)
        self.assertEqual(model(**inputs).last_hidden_state.shape, shape)

    @unittest.skip(reason="Waveforms have no embeddings")
    def test_inputs_embeds(self):
        pass

    @unittest.skip(reason="Waveforms have no embeddings")
    def test_model_get_set_embeddings(self):
        pass


def set_weights(model):
    """Gives every weight a value that follows from its shape alone."""
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.sin(0.7 * torch.arange(parameter.numel(), dtype=torch.float64) ** 2 + parameter.ndim)
            values = values / max(parameter[0].numel(), 1) ** 0.5
            parameter.copy_(values.view(parameter.shape))
    return model.to(torch_device).eval()


def get_inputs():
    """Two clips, the second of which is padded."""
    time = torch.arange(1200)
    input_values = 0.3 * torch.stack([torch.sin(0.05 * time), torch.cos(0.02 * time)])
    attention_mask = (time < torch.tensor([[1200], [800]])).long()
    return (input_values * attention_mask).to(torch_device), attention_mask.to(torch_device)


@require_torch
class MertModelIntegrationTest(unittest.TestCase):
    def test_inference_single(self):
        input_values, _ = get_inputs()
        model = set_weights(MertModel(MertConfig(**TINY)))
        with torch.no_grad():
            states = model(input_values[:1]).last_hidden_state
        torch.testing.assert_close(states[0, :2, :4].cpu(), torch.tensor(EXPECTED_SINGLE), atol=1e-4, rtol=1e-4)

    def test_inference_batched(self):
        input_values, attention_mask = get_inputs()
        model = set_weights(MertModel(MertConfig(**TINY)))
        with torch.no_grad():
            states = model(input_values, attention_mask=attention_mask).last_hidden_state
        torch.testing.assert_close(states[:, :2, :4].cpu(), torch.tensor(EXPECTED_BATCH), atol=1e-4, rtol=1e-4)

    def test_inference_heads(self):
        input_values, attention_mask = get_inputs()
        for model_class, expected in (
            (MertForSequenceClassification, EXPECTED_CLIP_LOGITS),
            (MertForAudioFrameClassification, EXPECTED_FRAME_LOGITS),
        ):
            model = set_weights(model_class(MertConfig(**TINY)))
            with torch.no_grad():
                logits = model(input_values, attention_mask=attention_mask).logits
            logits = logits if logits.ndim == 2 else logits[:, :2]
            torch.testing.assert_close(logits.cpu(), torch.tensor(expected), atol=1e-4, rtol=1e-4)

    def test_padding_changes_nothing(self):
        input_values, attention_mask = get_inputs()
        model = set_weights(MertModel(MertConfig(**TINY)))
        with torch.no_grad():
            together = model(input_values, attention_mask=attention_mask)
            alone = model(input_values[1:, :800]).last_hidden_state
        num_frames = together.feature_attention_mask[1].sum()
        self.assertEqual(num_frames, alone.shape[1])
        torch.testing.assert_close(together.last_hidden_state[1, :num_frames], alone[0], atol=1e-5, rtol=1e-4)
