"""What TensorRT's parser rejects in a quantized file, or runs in float."""
