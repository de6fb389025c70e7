"""Client protocols, one module each. Text and decimals end here: behind it there are ticks, lots, units, indices."""
