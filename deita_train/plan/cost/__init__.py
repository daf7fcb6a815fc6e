"""What a plan's stages cost: rows and tokens, operations and hours, memory, and where selecting first pays."""
