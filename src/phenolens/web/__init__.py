"""Web: a study's folder as pages for people who don't write Python; read-only, on this machine alone."""
