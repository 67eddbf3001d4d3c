"""Where ``export/`` and ``calibration/`` go in a wheel; see :mod:`edgevit.resources`."""
