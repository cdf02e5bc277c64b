"""Ray: embedded in this machine or a cluster elsewhere, jobs on it, and their environment."""
