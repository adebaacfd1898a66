"""Examples of every extension: a domain with three levels and a checker, and one method of each
kind."""
