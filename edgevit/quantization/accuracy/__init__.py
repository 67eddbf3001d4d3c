"""How near a quantized model stays to float32, and what is done where that is not near enough."""
