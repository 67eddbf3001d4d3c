"""One dialect of quantized ONNX in each file, all from the same plan."""
