"""Checkpoints of other projects to ours and back: fairseq's MERT, the authors' Hub folders, Meta's EnCodec."""

from .checkpoint_file import CheckpointError, UnsafeCheckpointError
from .encodec import convert_encodec_checkpoint
from .fairseq import convert_fairseq_checkpoint, export_fairseq_checkpoint
from .hub import convert_hub_checkpoint
from .self_check import ConversionReport

__all__ = [
    "CheckpointError",
    "ConversionReport",
    "UnsafeCheckpointError",
    "convert_encodec_checkpoint",
    "convert_fairseq_checkpoint",
    "convert_hub_checkpoint",
    "export_fairseq_checkpoint",
]
