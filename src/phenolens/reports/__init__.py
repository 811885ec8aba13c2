"""One HTML page with everything a study found."""
