"""Chat models, asked over HTTP or run here: every answer is kept at once, and none is paid for twice."""
