"""How often models keep constraints that code can check: in go models and seeds, out come accuracies for a card."""
