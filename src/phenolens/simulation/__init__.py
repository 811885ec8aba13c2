"""A simulated screen with known answers, written to disk as a BBBC021 download."""
