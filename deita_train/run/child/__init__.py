"""What runs inside the process of one stage."""
