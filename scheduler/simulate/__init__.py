"""The policy on made-up or recorded load, in made-up time: what would happen if."""
