"""FP16: which nodes it is no good for, and the conversion of all others."""
