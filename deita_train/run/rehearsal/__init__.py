"""Rehearsal: the same recipe on this machine's CPU with stand-ins for models, data and endpoints."""
