"""Commands on a trained flow: score, sample, impute, export."""

# File of the rows beside a checkpoint's weights; it has the SHA-256 of the weights.
REFERENCE = "reference.safetensors"
