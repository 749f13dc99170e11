"""``python -m exhibit``."""

from exhibit.cli import main

if __name__ == "__main__":
    main()
