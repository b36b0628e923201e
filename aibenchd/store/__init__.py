"""Store: the journal under all rooms. SQL lives here and nowhere else."""
