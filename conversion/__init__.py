"""Checkpoints of other projects to ours and back: fairseq's MERT, the authors' Hub folders, Meta's EnCodec."""

from .errors import CheckpointError, UnsafeCheckpointError
from .fairseq import convert_fairseq_checkpoint
from .fairseq_export import export_fairseq_checkpoint

__all__ = ["CheckpointError", "UnsafeCheckpointError", "convert_fairseq_checkpoint", "export_fairseq_checkpoint"]
