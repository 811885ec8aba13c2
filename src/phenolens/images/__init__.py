"""From fields of view to single-cell crops: read fields, cut or take over crops, flag noise, store them by plate."""
