"""Model cards in the Hub's format."""
