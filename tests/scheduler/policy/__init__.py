"""The policy alone: frozen values in, a plan out."""
