"""Training on trl's trainers: rows, checkpoints, callbacks, model files."""
