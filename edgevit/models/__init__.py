"""The ViT: what it is, its weights, and the families of checkpoints that load into it."""
