"""Fine-tuning: in go prompt/completion rows, out come checked settings, memory estimates and loaded models."""
