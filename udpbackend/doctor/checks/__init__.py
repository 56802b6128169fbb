"""The checks, one file for each finding. None knows another; what several need stands beside this package.

Each has `look(facts)`, which returns what it has found, and says in its first line what it looks at.
"""
