"""Helpers that are independent of audio and models: staged output, output checks, settings, optional packages."""
