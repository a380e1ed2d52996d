# SPDX-License-Identifier: Apache-2.0
"""Audio processor of MERT, for versions of transformers that have the base class (pull request 44394)."""

from transformers.audio_processing_utils import BaseAudioProcessor
from transformers.feature_extraction_utils import BatchFeature

from .feature_extraction_mert import MERTFeatureExtractor

OUTPUT_NAMES = {"input_values": "audio_values", "attention_mask": "audio_values_mask"}


class MERTAudioProcessor(BaseAudioProcessor):
    r"""[`MERTFeatureExtractor`] under the names of transformers' audio processors.

    Args:
        sampling_rate (`int`, defaults to 24000): sampling rate of the model in Hz; other audio is resampled to it.
        do_normalize (`bool`, defaults to `True`): normalize each clip to zero mean and unit variance.
        padding_value (`float`, defaults to 0.0): value of padded samples.
        return_padding_mask (`bool`, defaults to `True`): return which samples are valid.
    """

    model_input_names = ["audio_values", "audio_values_mask"]
    _auto_class = "AutoAudioProcessor"
    sampling_rate = 24000
    force_mono = True

    def __init__(self, sampling_rate=24000, do_normalize=True, padding_value=0.0, return_padding_mask=True, **kwargs):
        super().__init__(sampling_rate=sampling_rate, **kwargs)
        self.sampling_rate = sampling_rate
        self.do_normalize = do_normalize
        self.padding_value = padding_value
        self.return_padding_mask = return_padding_mask

    def __call__(self, audio, sampling_rate: int | None = None, return_padding_mask=None, **kwargs) -> BatchFeature:
        """Prepares one clip or a batch; arguments and errors as in [`MERTFeatureExtractor`].

        Returns:
            `audio_values` (batch, samples) float32 and `audio_values_mask` (batch, samples) int32.
        """
        extractor = MERTFeatureExtractor(
            sampling_rate=self.sampling_rate, do_normalize=self.do_normalize, padding_value=self.padding_value
        )
        wants_mask = self.return_padding_mask if return_padding_mask is None else return_padding_mask
        features = extractor(audio, sampling_rate=sampling_rate, return_attention_mask=wants_mask, **kwargs)
        return BatchFeature({OUTPUT_NAMES[name]: values for name, values in features.items()})


__all__ = ["MERTAudioProcessor"]
