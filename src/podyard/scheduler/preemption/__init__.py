"""Who has to go so that a more important Pod may come."""
