"""Load and save policies and reward models as Hugging Face folders; build the small base model."""
