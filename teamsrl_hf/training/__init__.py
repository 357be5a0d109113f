"""What every trainer here shares: in go a Trainer's arguments and folders, out come checks and whole checkpoints."""
