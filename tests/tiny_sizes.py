"""Sizes of tiny models that several areas test with."""

# The smallest MERT, of which the tests make checkpoints: one layer of 16 dimensions, hop 320.
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 8],
    "conv_stride": [80, 4],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}

# A student for pre-training on sounds at 2000 Hz: hop 40.
STUDENT_SIZES = {
    "sample_rate": 2000,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8, 8],
    "conv_stride": [5, 4, 2],
    "conv_kernel": [10, 4, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
