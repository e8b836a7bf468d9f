"""What carries the messages of a simulated study: this process, or resident actors of Ray."""
