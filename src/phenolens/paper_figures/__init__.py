"""The figures of Lafarge et al. 2019, of any study."""
