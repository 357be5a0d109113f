"""How well the rules of the gate tell good rewrites from bad ones."""
