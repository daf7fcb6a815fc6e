"""Stages that run a model over every row: scores, embeddings, losses, log-probabilities."""
