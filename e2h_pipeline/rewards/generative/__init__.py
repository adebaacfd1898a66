"""A language model as evaluator: it writes a verdict behind each step."""
