"""Makes `python -m lessor` the same as the command `lessor`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
