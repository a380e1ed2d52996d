"""The full pipeline on real scores, offline, in minutes."""
