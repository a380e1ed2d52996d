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
"""Testing suite for the PyTorch MERT-v2 model."""

import unittest

from transformers import Mert2Config, is_torch_available
from transformers.testing_utils import require_torch, torch_device

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, floats_tensor
from ...test_pipeline_mixin import PipelineTesterMixin


if is_torch_available():
    import torch

    from transformers import Mert2ForAudioFrameClassification, Mert2ForSequenceClassification, Mert2Model


# The sizes of all models here, and the results of mert_hf's own classes with the weights of `set_weights`.
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "num_mel_bins": 8,
    "n_fft": 64,
    "win_length": 64,
    "hop_length": 20,
    "subsampling_channels": (8, 12, 16),
    "subsampling_depths": (1, 1, 1),
    "conv_depthwise_kernel_size": 7,
}
EXPECTED_SINGLE = [[2.4079, 0.5023, -0.1075, 1.6964], [2.3806, 0.5004, -0.1429, 1.7237]]
EXPECTED_BATCH = [
    [[2.4079, 0.5023, -0.1075, 1.6964], [2.3806, 0.5004, -0.1429, 1.7237]],
    [[2.4068, 0.5055, -0.1074, 1.6945], [2.3804, 0.5004, -0.1428, 1.7228]],
]
EXPECTED_CLIP_LOGITS = [[4.7658, 1.1431], [4.7669, 1.1432]]
EXPECTED_FRAME_LOGITS = [[[2.9768, -0.0545], [2.9781, -0.0484]], [[2.9766, -0.0554], [2.9783, -0.0481]]]


class Mert2ModelTester:
    def __init__(self, parent, batch_size=3, seq_length=1200, is_training=True):
        self.parent = parent
        self.batch_size = batch_size
        self.seq_length = seq_length
        self.is_training = is_training
        self.hidden_size = TINY["hidden_size"]
        self.num_hidden_layers = TINY["num_hidden_layers"]
        self.num_attention_heads = TINY["num_attention_heads"]
        self.encoder_seq_length = 15

    def get_config(self):
        return Mert2Config(**TINY)

    def prepare_config_and_inputs_for_common(self):
        lengths = torch.tensor([self.seq_length, 800, 500])[: self.batch_size]
        attention_mask = (torch.arange(self.seq_length) < lengths[:, None]).long().to(torch_device)
        input_values = floats_tensor([self.batch_size, self.seq_length], scale=1.0)
        return self.get_config(), {"input_values": input_values, "attention_mask": attention_mask}


@require_torch
class Mert2ModelTest(ModelTesterMixin, PipelineTesterMixin, unittest.TestCase):
    all_model_classes = (
        (Mert2Model, Mert2ForSequenceClassification, Mert2ForAudioFrameClassification) if is_torch_available() else ()
    )
    pipeline_model_mapping = (
        {"audio-classification": Mert2ForSequenceClassification, "feature-extraction": Mert2Model}
        if is_torch_available()
        else {}
    )
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = Mert2ModelTester(self)
        self.config_tester = ConfigTester(self, config_class=Mert2Config, has_text_modality=False, hidden_size=36)

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
        model = Mert2Model(config).to(torch_device).eval()
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
        front_end = getattr(model, model.base_model_prefix, model).feature_extractor
        front_end.mel_mean.fill_(-30.0)
        front_end.mel_std.fill_(20.0)
    return model.to(torch_device).eval()


def get_inputs():
    """Two clips, the second of which is padded."""
    time = torch.arange(1200)
    input_values = 0.3 * torch.stack([torch.sin(0.05 * time), torch.cos(0.02 * time)])
    attention_mask = (time < torch.tensor([[1200], [800]])).long()
    return (input_values * attention_mask).to(torch_device), attention_mask.to(torch_device)


@require_torch
class Mert2ModelIntegrationTest(unittest.TestCase):
    def test_inference_single(self):
        input_values, _ = get_inputs()
        model = set_weights(Mert2Model(Mert2Config(**TINY)))
        with torch.no_grad():
            states = model(input_values[:1]).last_hidden_state
        torch.testing.assert_close(states[0, :2, :4].cpu(), torch.tensor(EXPECTED_SINGLE), atol=1e-4, rtol=1e-4)

    def test_inference_batched(self):
        input_values, attention_mask = get_inputs()
        model = set_weights(Mert2Model(Mert2Config(**TINY)))
        with torch.no_grad():
            states = model(input_values, attention_mask=attention_mask).last_hidden_state
        torch.testing.assert_close(states[:, :2, :4].cpu(), torch.tensor(EXPECTED_BATCH), atol=1e-4, rtol=1e-4)

    def test_inference_heads(self):
        input_values, attention_mask = get_inputs()
        for model_class, expected in (
            (Mert2ForSequenceClassification, EXPECTED_CLIP_LOGITS),
            (Mert2ForAudioFrameClassification, EXPECTED_FRAME_LOGITS),
        ):
            model = set_weights(model_class(Mert2Config(**TINY)))
            with torch.no_grad():
                logits = model(input_values, attention_mask=attention_mask).logits
            logits = logits if logits.ndim == 2 else logits[:, :2]
            torch.testing.assert_close(logits.cpu(), torch.tensor(expected), atol=1e-4, rtol=1e-4)

    def test_padding_changes_nothing(self):
        input_values, attention_mask = get_inputs()
        model = set_weights(Mert2Model(Mert2Config(**TINY)))
        with torch.no_grad():
            together = model(input_values, attention_mask=attention_mask)
            alone = model(input_values[1:, :800]).last_hidden_state
        num_frames = together.feature_attention_mask[1].sum()
        self.assertEqual(num_frames, alone.shape[1])
        torch.testing.assert_close(together.last_hidden_state[1, :num_frames], alone[0], atol=1e-5, rtol=1e-4)
