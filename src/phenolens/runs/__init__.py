"""The runs of a study and what they embed and decode."""
