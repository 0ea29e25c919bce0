"""`python -m bmjax` is the command `bmjax`."""

from bmjax.cli import main

if __name__ == "__main__":
    main()
