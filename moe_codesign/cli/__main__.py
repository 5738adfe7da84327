"""``python -m moe_codesign.cli``."""

from moe_codesign.cli import main

if __name__ == "__main__":
    main()
