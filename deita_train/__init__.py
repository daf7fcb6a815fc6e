"""Select instruction data by complexity, quality and diversity (DEITA), and train on it, from one recipe."""

__version__ = "0.1.0"
