"""Contents: what a study's pictures and pages hold.

Here a study's folder, its models and the functions of phenotype and profiling meet: runs are opened, cells decoded and
measured, and values handed on to be shown; nothing is drawn and nothing scored.
"""
