"""What a run came to, as data: its record, its groups of cells, their quantities, the verdict."""
