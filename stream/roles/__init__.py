"""What every role is made of, whatever it does."""
