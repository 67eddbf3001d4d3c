"""Draws, once it is imported, the pictures that most tests take: processes that are forked from this one have them."""

import kept_shapes

from edgevit.data import shapes

kept_shapes.keep(shapes)
for split in ("train", "test"):
    drawn = shapes.load_shapes(split, kept_shapes.SHAPES.partition(":")[2])
    for index in range(len(drawn)):
        drawn.image(index)
