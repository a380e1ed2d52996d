"""The command line `mert-hf`."""

from .app import app, main

__all__ = ["app", "main"]
