"""From a float32 ONNX graph and calibration images to an INT8 one."""
