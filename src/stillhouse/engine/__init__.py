"""The training loop, and what it needs: devices, optimisers, checkpoints, records."""
