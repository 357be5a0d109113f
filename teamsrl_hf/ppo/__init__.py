"""The operation policy and its PPO trainer: in go seeds and models, out comes a saved policy."""
