"""Every pair of operations, the second one while the first one's transaction is open, for isolationtester."""
