"""Makes `python -m lessor` the same as the command `lessor`."""

import sys

if __name__ == "__main__":
    try:
        from .cli.main import main

        code = main()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
