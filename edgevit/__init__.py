"""EdgeViT: from a Vision Transformer checkpoint to a verified, faster INT8 model on a small computer."""

__version__ = "0.1.0"
