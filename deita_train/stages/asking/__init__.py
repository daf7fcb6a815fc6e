"""Stages that ask a chat model."""
