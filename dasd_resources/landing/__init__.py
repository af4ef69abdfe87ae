"""Files in: the landing folder, and the prompts in its files."""
