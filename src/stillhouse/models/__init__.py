"""Networks: by name, their weights, their taps, and what is put on top of them."""
