"""What a person can run: one flow a file, the order of steps and nothing else."""
