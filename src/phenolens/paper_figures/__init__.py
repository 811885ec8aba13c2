"""The figures of Lafarge et al. 2019 for a study, as matplotlib Figures: a function and a file each."""
