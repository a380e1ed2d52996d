"""Fixtures of the pre-training tests."""

from tiny_pretraining import recordings, tiny_run  # noqa: F401
