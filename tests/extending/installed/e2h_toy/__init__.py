"""Examples of every seam: a domain with three levels and its own checker, and a method of each kind."""
