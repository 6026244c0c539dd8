"`lmd` in a process of its own that imports nothing: it is forked from one that has imported all of it."
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]/"scripts"))
from fork_lmd import become

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload([f"lmd.{name}" for name in (
    "cli", "cli_data", "cli_fit", "cli_pictures", "calibration", "distance", "outliers", "releasing",
    "scoring", "training")])


def lmd(*args):
    "The command, as the program `lmd` runs it"
    from lmd.cli import main
    main([str(a) for a in args], prog_name="lmd")


def work(function, args, folder, environment, files):
    "What the process does"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    opened = [os.open(file, os.O_WRONLY | os.O_APPEND) for file in files]
    become(folder, environment, dict(enumerate(opened, 1)))
    function(*args)


class Forked:
    "A process that runs a function, with changed variables; the methods are those of `subprocess.Popen`"
    def __init__(self, *args, cwd, function=lmd, **variables):
        self.args, self.files = args, [tempfile.mkstemp()[1] for _ in range(2)]
        environment = {k: v for k, v in (os.environ | variables).items() if v is not None}
        self.process = forks.Process(target=work, args=(function, args, str(cwd), environment, self.files))
        self.process.start()
        self.pid, self.kill = self.process.pid, self.process.kill

    returncode = property(lambda self: self.process.exitcode)

    def poll(self): return self.returncode

    def wait(self, timeout=None):
        self.process.join(timeout)
        if self.returncode is None: raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number): os.kill(self.pid, number)

    def said(self): return [Path(file).read_text(encoding="utf-8") for file in self.files]

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self.said()

    def end(self):
        self.kill()
        self.wait()
        for file in self.files: os.unlink(file)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def together(processes, *args, cwd):
    "The processes of one run, with the variables that `torchrun` gives them"
    known = dict(WORLD_SIZE=processes, LOCAL_WORLD_SIZE=processes, MASTER_ADDR="127.0.0.1",
                 MASTER_PORT=free_port(), TORCHELASTIC_RUN_ID="none")
    places = [known | dict(RANK=k, LOCAL_RANK=k) for k in range(processes)]
    return [Forked(*args, cwd=cwd, **{k: str(v) for k, v in place.items()}) for place in places]
