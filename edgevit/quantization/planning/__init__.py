"""What of a model is quantized, and by which scales: from what calibration saw, before anything is rewritten."""
