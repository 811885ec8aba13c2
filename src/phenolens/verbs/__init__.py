"""One module a verb of the command line: `Flags`, what it takes, and `act`, what it does.

Flags and their help are made from the dataclasses; a verb imports no more than it needs, so that scoring and help
answer at once without torch.
"""
