"""One Trainer, many objectives: supervised fine-tuning and reward models share one loop."""
