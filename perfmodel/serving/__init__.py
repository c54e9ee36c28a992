"""Load: steady state and queueing of serving replicas."""
