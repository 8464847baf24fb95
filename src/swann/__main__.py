"""``python -m swann``: the command line."""

from swann.cli import main

if __name__ == "__main__":
    main()
