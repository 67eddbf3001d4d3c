"""What calibration sees: observers of layers' inputs, range estimators, and the pass over the images."""
