"""The world the policy acts in: in go seeds and a chooser, out come reviewed chains and their rewards; no torch."""
