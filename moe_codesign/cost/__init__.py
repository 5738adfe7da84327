"""What a problem costs on a chip: bounds, models over compiled facts, and the choice of tiles."""
