"""What a stage costs, as arithmetic on plain numbers: shapes, operations, memory, GPUs. Imports nothing heavy."""
