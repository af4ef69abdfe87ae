"""What a person types: one module per `dasd` command, whose `command` cli.py calls with the parsed arguments."""

LOOPBACK = "127.0.0.1"  # where the web UI listens unless the user names another host
