"""swann: approximate nearest neighbours."""
