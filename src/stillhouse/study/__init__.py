"""Many runs, and the statistics over them."""
