"""The errors of reading and converting checkpoints: all are `ValueError`s that name the file's fault."""


class CheckpointError(ValueError):
    """A checkpoint file that is damaged, of an unknown format, or does not hold what it should."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint whose pickle asks for something that could act on the machine. Nothing of it was run."""
