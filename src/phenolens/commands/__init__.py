"""Every command as a function: the command line and notebooks call the same ones."""
