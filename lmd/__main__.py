"`python -m lmd` is the command `lmd`."
from lmd.cli import main

main(prog_name="python -m lmd")
