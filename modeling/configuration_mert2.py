# SPDX-License-Identifier: Apache-2.0
"""Configuration of MERT-v2 (report arXiv 2609.33757): typed fields, one validator, derived numbers as properties."""

import math
from typing import Annotated

from transformers import PretrainedConfig

from .configuration_mert import (
    MAX_PARAMETERS,
    CodebookSizes,
    Count,
    LayerCount,
    LongSize,
    NonNegative,
    Positive,
    Probability,
    Rate,
    Size,
    Sizes,
    check_fields,
    integer_list,
    report_unknown,
)

# Written into every config.json, whatever class was saved, so that each Auto class finds its code next to the weights.
AUTO_MAP = {
    "AutoConfig": "configuration_mert2.MERT2Config",
    "AutoModel": "modeling_mert2.MERT2Model",
    "AutoModelForPreTraining": "modeling_mert2.MERT2ForPreTraining",
    "AutoModelForAudioClassification": "modeling_mert2.MERT2ForSequenceClassification",
    "AutoModelForAudioFrameClassification": "modeling_mert2.MERT2ForAudioFrameClassification",
    "AutoFeatureExtractor": "feature_extraction_mert.MERTFeatureExtractor",
}

MAX_STAGES = 16
CQT_OCTAVES = 7  # of the second input spectrum
RESAMPLING_KERNEL = 2
CROP_SECONDS, FULL_SONG_SECONDS = 30.0, 360.0
# What the authors' configuration class computes and may write into config.json.
DERIVED = ("inputs_to_logits_ratio", "frame_rate", "minimum_input_samples")


class MERT2Config(PretrainedConfig):
    r"""Configuration of the MERT-v2 models. The defaults are those of MERT-v2-30s.

    Fields of the authors' Hub configuration keep their names and meaning; those that it does not have are marked with
    "ours" and leave the encoder as published.

    Args:
        hidden_size (`int`, defaults to 1024): width of the Conformer blocks; the width of the last subsampling stage.
        intermediate_size (`int`, defaults to 4096): width of the feed-forward layers.
        num_hidden_layers (`int`, defaults to 24): number of Conformer blocks.
        num_attention_heads (`int`, defaults to 16): attention heads a block; divides `hidden_size` into even parts.
        num_mel_bins (`int`, defaults to 128): mel bands of the input spectrum.
        sampling_rate (`int`, defaults to 24000): sampling rate of the input in Hz.
        n_fft (`int`, defaults to 2048): samples of a Fourier transform.
        win_length (`int`, defaults to 2048): samples of its window, at most `n_fft`.
        hop_length (`int`, defaults to 240): samples from one mel frame to the next. `samples_per_frame` is the distance
            between the encoder's frames.
        subsampling_channels (`list[int]`): width of each subsampling stage; `num_mel_bins`, 512 and `hidden_size` if
            None.
        subsampling_depths (`list[int]`, defaults to `(3, 4, 5)`): ConvNeXt layers of each stage.
        subsampling_strides (`list[int]`): ours. Stride of each stage; 1 for the first and 2 for the others if None, as
            in the published model.
        conv_depthwise_kernel_size (`int`, defaults to 31): kernel of the blocks' depthwise convolution, odd, in frames.
        rotary_embedding_base (`float`, defaults to 10000): base of the rotary position embedding.
        layer_norm_eps (`float`, defaults to 1e-05): epsilon of the blocks' LayerNorms.
        subsampling_layer_norm_eps (`float`, defaults to 1e-06): epsilon of the LayerNorms of the subsampling.
        initializer_range (`float`, defaults to 0.02): standard deviation of the initial weights.
        variant (`str`, defaults to `"30s"`): the published checkpoint, `"30s"` or `"fs"` (full song), or another name.
        context_seconds (`float`): longest audio in training, in seconds; 30, or 360 for the variant `"fs"`, if None.
        hidden_dropout, activation_dropout, attention_dropout (`float`, defaults to 0.0): ours. Dropout after each
            sub-layer, inside the feed-forward layers, on attention weights.
        final_dropout (`float`, defaults to 0.1): ours. Dropout before the classifier of the heads.
        use_weighted_layer_sum (`bool`, defaults to `False`): ours. The heads read a learned average of all layers.
        classifier_proj_size (`int`, defaults to 256): ours. Width of the projection before the classifier.
        cqt_input_bins (`int`, defaults to 0): ours. Bins of a constant-Q spectrum over seven octaves from 32.7 Hz that
            is added to the encoder's input; 168 are 24 bins an octave, 0 leaves it out.
        codebook_sizes (`list[int]`): ours. Codes in each codebook that pre-training predicts. Four codebooks, as
            published, of 1024 codes, which is not published.
        codebook_prediction (`str`, defaults to `"linear"`): ours. `"linear"` heads, as published, or the `"cosine"`
            similarity with learned code embeddings of the first generation.
        codebook_dim (`int`, defaults to 64): ours. Dimension in which `"cosine"` compares states and codes.
        logit_temperature (`float`, defaults to 0.1): ours. Divisor of the cosine similarities.
        cqt_bins (`int`, defaults to 0): ours. Bins of the spectrum that pre-training predicts; 0 for none.
        cqt_loss_weight (`float`, defaults to 1.0): ours. Weight of its mean squared error.
        unmasked_loss_weight (`float`, defaults to 0.0): ours. Weight of a frame that is not masked in the prediction
            losses, where a masked one weighs 1.
        mask_noise_std (`float`, defaults to 0.1): ours. Standard deviation of the noise that replaces masked frames of
            the normalized mel spectrum. MusicFM (arXiv 2311.03318) and MuQ (arXiv 2501.01108) mask with noise of 0.1.

    Raises:
        ValueError: a field is out of range or contradicts another one.
        TypeError: a field has the wrong type.
    """

    model_type = "mert2"
    _auto_class = "AutoConfig"

    hidden_size: Count = 1024
    intermediate_size: LongSize = 4096
    num_hidden_layers: LayerCount = 24
    num_attention_heads: LayerCount = 16
    num_mel_bins: Size = 128
    sampling_rate: Rate = 24000
    n_fft: Annotated[int, 2, 1_048_576] = 2048
    win_length: Annotated[int, 2, 1_048_576] = 2048
    hop_length: LongSize = 240
    subsampling_channels: Annotated[list[int] | tuple[int, ...], 0, 65_536] | None = None
    subsampling_depths: Annotated[list[int] | tuple[int, ...], 0, 1_024] = (3, 4, 5)
    subsampling_strides: Sizes | None = None
    conv_depthwise_kernel_size: Size = 31
    rotary_embedding_base: Annotated[float, 1.0, math.inf] = 10000
    layer_norm_eps: NonNegative = 1e-5
    subsampling_layer_norm_eps: NonNegative = 1e-6
    initializer_range: NonNegative = 0.02
    variant: str = "30s"
    context_seconds: NonNegative | None = None
    hidden_dropout: Probability = 0.0
    activation_dropout: Probability = 0.0
    attention_dropout: Probability = 0.0
    final_dropout: Probability = 0.1
    use_weighted_layer_sum: bool = False
    classifier_proj_size: LongSize = 256
    cqt_input_bins: Count = 0
    codebook_sizes: CodebookSizes = (1024, 1024, 1024, 1024)
    codebook_prediction: Annotated[str, "linear", "cosine"] = "linear"
    codebook_dim: Size = 64
    logit_temperature: Positive = 0.1
    cqt_bins: Count = 0
    cqt_loss_weight: NonNegative = 1.0
    unmasked_loss_weight: NonNegative = 0.0
    mask_noise_std: NonNegative = 0.1

    def __init__(self, **kwargs):
        # One constructor for all supported versions of transformers; see MERTConfig.
        for name in FIELDS:
            setattr(self, name, kwargs.pop(name, getattr(MERT2Config, name)))
        if self.context_seconds is None:
            self.context_seconds = FULL_SONG_SECONDS if self.variant == "fs" else CROP_SECONDS
        if self.subsampling_channels is None:
            self.subsampling_channels = [self.num_mel_bins, 512, self.hidden_size]
        for name in ("subsampling_channels", "subsampling_depths", "codebook_sizes"):
            setattr(self, name, integer_list(name, getattr(self, name)))
        if self.subsampling_strides is None:
            self.subsampling_strides = [1 if stage == 0 else 2 for stage in range(len(self.subsampling_channels))]
        self.subsampling_strides = integer_list("subsampling_strides", self.subsampling_strides)
        check_fields(self, FIELDS)
        self._check_combinations()
        self._check_derived({name: kwargs.pop(name) for name in DERIVED if name in kwargs})
        report_unknown(type(self).__name__, kwargs, FIELDS)
        super().__init__(**kwargs)
        self.auto_map = dict(AUTO_MAP)

    @property
    def stages(self) -> list[tuple[int, int, int, int]]:
        """(input width, width, stride, layers) of each subsampling stage."""
        widths = [self.num_mel_bins, *self.subsampling_channels]
        return list(
            zip(widths[:-1], self.subsampling_channels, self.subsampling_strides, self.subsampling_depths, strict=True)
        )

    @property
    def resampling_strides(self) -> list[int]:
        """Strides of the stages that begin with a convolution: those that change the width or the rate."""
        return [stride for inputs, outputs, stride, _ in self.stages if inputs != outputs or stride > 1]

    @property
    def samples_per_frame(self) -> int:
        """Samples from one frame of the encoder to the next."""
        return self.hop_length * math.prod(self.subsampling_strides)

    inputs_to_logits_ratio = samples_per_frame  # under the name by which transformers' audio code reads it

    @property
    def sample_rate(self) -> int:
        """The first generation's name of `sampling_rate`."""
        return self.sampling_rate

    @property
    def frame_rate(self) -> float:
        """Frames of the encoder in a second of audio, in Hz."""
        return self.sampling_rate / self.samples_per_frame

    @property
    def receptive_field(self) -> int:
        """Samples that a clip needs for its first frame: at least as many as the reflection at its ends needs."""
        mel_frames = 1
        for stride in reversed(self.resampling_strides):
            mel_frames = (mel_frames - 1) * stride + RESAMPLING_KERNEL
        return max(mel_frames * self.hop_length, self.n_fft // 2 + 1)

    minimum_input_samples = receptive_field  # under the authors' name

    @property
    def resolved_codebook_sizes(self) -> list[int]:
        """`codebook_sizes`, by the name that both generations have."""
        return list(self.codebook_sizes)

    @property
    def num_codebooks(self) -> int:
        """Codebooks that pre-training predicts."""
        return len(self.codebook_sizes)

    @property
    def codebook_size(self) -> int:
        """Codes in the largest codebook, 0 where there is none."""
        return max(self.codebook_sizes, default=0)

    @staticmethod
    def target_fields(codebook_sizes, num_bins: int) -> dict:
        """The fields that say what pre-training predicts: codes in each codebook, bins of a spectrum."""
        return {"codebook_sizes": list(codebook_sizes), "cqt_bins": num_bins}

    def num_mel_frames(self, num_samples):
        """Frames of the mel spectrum of a clip, `num_samples // hop_length`; the type of `num_samples` is kept."""
        return num_samples // self.hop_length

    def num_frames(self, num_samples):
        """Frames that the encoder makes of a clip.

        Args:
            num_samples (`int`, integer tensor or array): length of the clip in samples.

        Returns:
            The number of frames, of the type given: `num_samples // samples_per_frame` where each stage that changes
            the width also changes the rate, as in the published models; 0 for a clip shorter than `receptive_field`.
        """
        frames = self.num_mel_frames(num_samples)
        for stride in self.resampling_strides:
            frames = (frames - RESAMPLING_KERNEL) // stride + 1
        return frames * (num_samples >= self.receptive_field)

    def frame_times(self, num_frames: int) -> list[float]:
        """Times in seconds of the centers of the first `num_frames` frames, counted from the start of the clip.

        Mel frame k is centered on sample k x hop_length, and a frame of the encoder lies amid those that it covers.
        """
        step, offset = self.hop_length, 0.0
        for stride in self.resampling_strides:
            offset += (RESAMPLING_KERNEL - 1) / 2 * step
            step *= stride
        return [(index * step + offset) / self.sampling_rate for index in range(num_frames)]

    def check_width(self):
        """Refuses a width that no model can have; models call it, as tests make configurations of any width."""
        if not all(self.subsampling_channels):
            raise ValueError(f"subsampling_channels={self.subsampling_channels} must be positive, as hidden_size.")
        if not self.hidden_size or self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} must be a positive multiple of twice "
                f"num_attention_heads={self.num_attention_heads}: rotary positions turn pairs of channels."
            )
        if self.hidden_size != self.subsampling_channels[-1]:
            raise ValueError(
                f"hidden_size={self.hidden_size} must equal the width of the last subsampling stage, given "
                f"subsampling_channels={self.subsampling_channels}."
            )

    def _check_derived(self, given: dict) -> None:
        for name, value in given.items():
            if value != getattr(self, name):
                raise ValueError(
                    f"{name}={value!r} contradicts the other fields, from which {getattr(self, name)!r} follows. Leave "
                    f"{name} out."
                )

    def _check_combinations(self):
        lengths = {
            name: len(getattr(self, name))
            for name in ("subsampling_channels", "subsampling_depths", "subsampling_strides")
        }
        if len(set(lengths.values())) != 1 or not 1 <= len(self.subsampling_channels) <= MAX_STAGES:
            raise ValueError(
                f"The subsampling stages disagree: {lengths}. Give subsampling_channels, subsampling_depths and "
                f"subsampling_strides the same length, between 1 and {MAX_STAGES}."
            )
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length={self.win_length} must be at most n_fft={self.n_fft}.")
        if self.conv_depthwise_kernel_size % 2 == 0:
            raise ValueError(f"conv_depthwise_kernel_size={self.conv_depthwise_kernel_size} must be odd.")
        if self.cqt_input_bins % CQT_OCTAVES:
            raise ValueError(
                f"cqt_input_bins={self.cqt_input_bins} must be a multiple of {CQT_OCTAVES}: the spectrum spans "
                "seven octaves."
            )
        if (parameters := self._approximate_parameters()) > MAX_PARAMETERS:
            raise ValueError(
                f"These sizes make a model of about {parameters:.1e} parameters, more than {MAX_PARAMETERS:.0e}. Lower "
                f"hidden_size={self.hidden_size}, num_hidden_layers={self.num_hidden_layers}, subsampling_channels, "
                "codebook_sizes or n_fft."
            )

    def _approximate_parameters(self) -> int:
        """Weights of the matrices and convolutions and the mel filters, without biases and norms."""
        hidden = self.hidden_size
        blocks = self.num_hidden_layers * hidden * (7 * hidden + 4 * self.intermediate_size)
        stages = sum(
            outputs * (RESAMPLING_KERNEL * inputs + 8 * layers * outputs) for inputs, outputs, _, layers in self.stages
        )
        codes = sum(self.codebook_sizes) * max(hidden, self.codebook_dim)
        return blocks + stages + codes + self.n_fft // 2 * self.num_mel_bins


FIELDS = MERT2Config.__annotations__  # name: type

__all__ = ["MERT2Config"]
