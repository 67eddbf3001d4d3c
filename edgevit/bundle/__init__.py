"""The folder that a model lives in: its manifest and its variants."""
