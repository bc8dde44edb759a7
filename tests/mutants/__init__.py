"""Mutants: the SQL broken on purpose, in one place at a time, to see that the tests notice."""
