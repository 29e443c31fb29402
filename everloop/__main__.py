"""python -m everloop: the command line."""

from everloop.cli.main import main

if __name__ == "__main__":
    main()
