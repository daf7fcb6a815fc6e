"""What a selection decided about each row, as columns and in words."""
