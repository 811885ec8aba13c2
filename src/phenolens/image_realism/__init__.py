"""How realistic a model's images are, next to real and blurred cells."""
