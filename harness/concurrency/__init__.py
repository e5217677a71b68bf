"""Several items of an iteration job at a time, with one cursor."""
