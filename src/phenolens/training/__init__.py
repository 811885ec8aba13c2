"""Training: draw cells evenly over treatments, step every player, keep checkpoints; then embed."""
