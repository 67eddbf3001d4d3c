"""Small rewrites of an ONNX graph, one in each file."""
