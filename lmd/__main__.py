"`python -m lmd` is the command `lmd`."
import sys
from pathlib import Path

# a module of lmd, such as random, must not stand in the place of Python's own where this is called
sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]

from lmd.cli import main

main(prog_name="python -m lmd")
