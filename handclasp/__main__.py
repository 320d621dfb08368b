"""``python -m handclasp``."""

from .cli import main

main(prog_name="handclasp")
