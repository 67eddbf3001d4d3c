"""Pictures of shapes, kept: to draw a small one takes longer than what most tests do with it, and all take the same."""

from types import ModuleType

SHAPES = "shapes:size=16,count=96"  # what most tests give commands as their data
MOST = 1 << 14  # of pictures
LARGEST = 32  # pixels a side, which are 3 KiB


def keep(shapes: ModuleType) -> None:
    """Draw each picture once from now on; whoever asks gets a copy. ``Shapes.image.drawn`` draws it each time."""
    draw, kept = shapes.Shapes.image, {}

    def image(self, index):
        if self.size > LARGEST:
            return draw(self, index)
        key = (self._stream, self.size, int(index))
        if key not in kept:
            if len(kept) >= MOST:
                kept.clear()
            kept[key] = draw(self, index)
        return kept[key].copy()

    image.drawn = draw
    shapes.Shapes.image = image
