# SPDX-License-Identifier: Apache-2.0
"""The files that travel to the Hub with each checkpoint: configuration, model, feature extractor."""

import transformers  # noqa: F401  before any of the files: its import registers them, see `mert_hf.registration`
