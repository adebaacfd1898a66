"""Answer extraction, equivalence of answers behind killable workers, and answer classes for voting."""
