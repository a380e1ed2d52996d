# SPDX-License-Identifier: Apache-2.0
"""The files that travel to the Hub with each checkpoint: configuration, model, feature extractor."""
