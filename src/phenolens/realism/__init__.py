"""How real a model's pictures look, beside real and blurred cells."""
