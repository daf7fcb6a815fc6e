"""What runs inside the child processes: stages, their publishing, the report."""
