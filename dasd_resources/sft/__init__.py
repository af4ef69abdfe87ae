"""Training: TRL's SFT in a child process, and the checkpoints it publishes."""
