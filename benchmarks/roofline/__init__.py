"""How near a search comes to what the core can do, by stage."""
