"""Small helpers without knowledge of audio or models: staged output, checks of output places, settings, packages."""
