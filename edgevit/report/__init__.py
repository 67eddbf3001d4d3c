"""What was measured, as one HTML page and its JSON."""
