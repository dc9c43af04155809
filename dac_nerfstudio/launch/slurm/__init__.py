"""Plans on a Slurm cluster, by way of submitit."""
