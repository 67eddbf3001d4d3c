"""Model repositories for NVIDIA's Triton Inference Server: what they are made of, and what runs in them."""
