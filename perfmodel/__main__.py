"""``python -m perfmodel``."""

from perfmodel.cli.main import main

if __name__ == "__main__":
    main()
