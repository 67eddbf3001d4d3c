"""From a torch module to a clean float32 ONNX graph."""
