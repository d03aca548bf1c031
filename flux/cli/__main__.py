"""`flux`, or `python -m flux.cli`."""

from flux.cli.app import main

if __name__ == "__main__":
    main()
