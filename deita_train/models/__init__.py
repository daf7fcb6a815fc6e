"""Model folders on disk: where they come from, what they hold, and which shapes their weights have."""
