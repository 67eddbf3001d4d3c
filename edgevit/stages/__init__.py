"""What each command does, one function in each file; the pipeline calls the others."""
