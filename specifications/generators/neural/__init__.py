"""Networks with seeded weights, and how they are written in each framework's own format. Needs numpy and nothing else."""
