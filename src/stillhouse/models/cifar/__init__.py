"""The networks in which distillation is compared on small images."""
