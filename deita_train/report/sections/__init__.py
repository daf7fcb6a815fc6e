"""The report's sections, in the order of reading."""
