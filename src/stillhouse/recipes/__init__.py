"""What one run is, said in a file."""
