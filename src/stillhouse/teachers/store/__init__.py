"""Teacher outputs on the disk, shared by runs and processes."""
