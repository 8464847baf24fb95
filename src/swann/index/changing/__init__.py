"""How an index changes while it is searched, and how changes last."""
