"""What a person types: one module per `dasd` command, whose `command` cli.py calls with the parsed arguments."""
