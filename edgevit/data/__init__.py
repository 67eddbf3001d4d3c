"""Images and labels, from wherever they come, and the preprocessing that every stage shares."""
