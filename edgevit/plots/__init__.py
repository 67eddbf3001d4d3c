"""Plots as SVG: how a training went, which classes are confused, and what a variant's speed costs in accuracy.

Each is one function that takes numbers and names and returns the text of an ``<svg>``; nothing but the base install is
needed. A report has them within its page, a RUN as files: ``svg.standalone`` adds what a file needs.
"""
