"""How many tokens to merge behind the attention of each block."""
