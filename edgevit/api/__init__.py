"""What ``import edgevit`` offers: one function for each step of the way, with the command line's names and defaults.

Each function is in a module of its own, which is imported only when the function is looked up.
"""
