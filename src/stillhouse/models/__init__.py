"""The networks: naming them, loading them, reading them while they run."""
