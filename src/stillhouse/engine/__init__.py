"""The loop on one screen, and what it stands on."""
