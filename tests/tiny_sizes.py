"""Sizes of the smallest MERT that the tests of checkpoints make: one layer of 16 dimensions, hop 320."""

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
