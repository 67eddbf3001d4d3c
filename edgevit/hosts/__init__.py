"""Measures bundles on other devices, over the user's own OpenSSH client."""
