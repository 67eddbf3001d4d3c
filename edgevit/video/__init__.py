"""Hand a classifier over to a video pipeline: what ``edgevit pack --format deepstream`` and ``dlstreamer`` write."""
