"""The first phase: a k-means tree, of which a query visits only the best leaves."""
