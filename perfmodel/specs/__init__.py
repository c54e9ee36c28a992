"""What a user may write: machines, models, workloads, frameworks."""
