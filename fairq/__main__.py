"""``python -m fairq``: the command line."""

from fairq.cli.main import main

if __name__ == "__main__":
    main()
