"""What the rules of `text.rules` look for: in goes text, out come findings. No models, no torch."""
