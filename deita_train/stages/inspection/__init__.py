"""One row as a stage gives it to the model."""
