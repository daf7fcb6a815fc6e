"""What the command line does besides running a recipe: single stages, inspection, validation, pushing, SLURM."""
