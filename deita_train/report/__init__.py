"""The report of a run: one HTML page, Markdown with figures, and rows for the command line."""
