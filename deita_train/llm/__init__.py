"""Chat models that answer requests: what is asked, and what comes back."""
