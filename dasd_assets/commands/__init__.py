"""What a person types: one module per `dasd` command; `cli.py` parses the words and calls them."""
