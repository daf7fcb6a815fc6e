"""The report's tables, as columns and rows of text."""
