"""A program `lmd` for chapters under test: forked from the process that runs them, it imports nothing."""
import atexit
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

from lmd.cli import main

CLIENT = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
sys.exit(int(server.recv(9) or 1))
"""


def become(folder, environment, files):
    "Take over a folder, variables, and files in the place of output, errors and perhaps input"
    for number, file in files.items(): os.dup2(file, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, encoding="utf-8", closefd=False) for n in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def command(args, folder, environment, files):
    "What the forked process does; it does not return"
    code = 1
    try:
        become(folder, environment, dict(enumerate(files)))
        main(args, prog_name="lmd")
    except SystemExit as e: code = e.code or 0
    finally: os._exit(code)


def answer(connection):
    "Run one command and say with what code it ended"
    with connection:
        message, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
        process = os.fork()
        if not process: command(*json.loads(message), files)
        for file in files: os.close(file)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        connection.sendall(str(code).encode())


def listen(server):
    while True: threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()


def serve():
    "Put a program `lmd` first on the path that asks this process"
    folder, server = Path(tempfile.mkdtemp()), socket.socket(socket.AF_UNIX)
    atexit.register(shutil.rmtree, folder)
    server.bind(str(folder/"socket"))
    server.listen()
    client = CLIENT.format(python=sys.executable, address=str(folder/"socket"))
    (folder/"lmd").write_text(client, encoding="utf-8")
    (folder/"lmd").chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    threading.Thread(target=listen, args=[server], daemon=True).start()
