"""`python -m dasd_assets.cli`, the same as `dasd`."""

import sys

from dasd_assets.cli import main

if __name__ == "__main__":
    sys.exit(main())
