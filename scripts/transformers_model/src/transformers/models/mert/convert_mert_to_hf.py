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
"""Converts MERT and MERT-v2 checkpoints that mert_hf saved. Those of the authors load as they are."""

import argparse

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    Wav2Vec2FeatureExtractor,
)


AUTO_CLASSES = {
    "ForSequenceClassification": AutoModelForAudioClassification,
    "ForAudioFrameClassification": AutoModelForAudioFrameClassification,
}
# Values with which a checkpoint has no more than the published architectures.
REQUIRED = {
    "feature_extractor_cqt": False,
    "deepnorm": False,
    "cqt_input_bins": 0,
    "subsampling_strides": [1, 2, 2],
}
FEATURE_EXTRACTOR_FIELDS = ("feature_size", "sampling_rate", "padding_value", "do_normalize", "return_attention_mask")
# The encoders and heads have the same names in both, but for the encoder inside the heads of MERT-v2.
KEY_MAPPING = {"mert_model": None, "mert2": {r"^mert\.": "mert2."}}
PRETRAINING_HEADS = ("codebook_", "cqt_head.")


def convert_mert_checkpoint(checkpoint_path: str, pytorch_dump_folder_path: str) -> None:
    stored = AutoConfig.from_pretrained(checkpoint_path)
    refused = {name: value for name, value in REQUIRED.items() if getattr(stored, name, value) != value}
    if refused:
        raise ValueError(f"Only checkpoints with {refused} can be converted.")
    fields = type(stored)().to_dict().keys()
    config = type(stored)(**{name: value for name, value in stored.to_dict().items() if name in fields})

    heads = [head for head in AUTO_CLASSES if (stored.architectures or [""])[0].endswith(head)]
    model, info = (AUTO_CLASSES[heads[0]] if heads else AutoModel).from_pretrained(
        checkpoint_path, config=config, key_mapping=KEY_MAPPING[stored.model_type], output_loading_info=True
    )
    unexpected = [name for name in info["unexpected_keys"] if not name.startswith(PRETRAINING_HEADS)]
    if unexpected or info["missing_keys"]:
        raise ValueError(f"Weights are missing: {sorted(info['missing_keys'])}, or unexpected: {sorted(unexpected)}.")
    model.save_pretrained(pytorch_dump_folder_path, save_original_format=False)  # under the new names
    fields, _ = Wav2Vec2FeatureExtractor.get_feature_extractor_dict(checkpoint_path)
    fields = {name: fields[name] for name in FEATURE_EXTRACTOR_FIELDS}
    Wav2Vec2FeatureExtractor(**fields).save_pretrained(pytorch_dump_folder_path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint_path", help="Folder of a checkpoint that mert_hf saved.")
    parser.add_argument("pytorch_dump_folder_path", help="Folder for the converted checkpoint.")
    args = parser.parse_args()
    convert_mert_checkpoint(args.checkpoint_path, args.pytorch_dump_folder_path)
