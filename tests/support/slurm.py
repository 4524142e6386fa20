"""A real SLURM of one node on the loopback interface, started and stopped by a fixture."""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["Slurm", "missing_programs", "until"]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol", "scancel", "srun")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=5
MessageTimeout=10
InactiveLimit=0
MinJobAge=300
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=n0 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n0 MaxTime=INFINITE State=UP
"""


def until(condition: Callable[[], object], what: str, seconds: float = 300.0) -> None:
    """Waits for a condition; fails with its name after some time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen in {seconds:.0f} s")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Slurm:
    """The daemons of one cluster in one folder.

    Arguments:
        folder: Where everything of it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        user = pwd.getpwuid(os.getuid()).pw_name
        for name in ("controller", "node"):
            (folder / name).mkdir(parents=True)
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        folder.chmod(0o755)
        self.configuration = folder / "slurm.conf"
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        self.configuration.write_text(
            CONFIGURATION.format(host=platform.node(), user=user, folder=folder, **ports).lstrip()
        )
        self.environment = os.environ | {"SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        """Starts the daemons and waits until the node is idle."""
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{name}" for option, name in files.items()]
        self._start("munge", ["munged", "--foreground", "--force", "--num-threads=1", *options])
        until((self.folder / "munge.socket").exists, "munged")
        self._start("controller", ["slurmctld", "-D", "-c"])
        self.start_node()

    def start_node(self) -> None:
        """Starts the node's daemon and waits until it takes tasks."""
        self._start("node", ["slurmd", "-D", "-N", "n0"])
        until(lambda: self.call("sinfo", "-h", "-o", "%t").split()[:1] in (["idle"], ["mix"], ["alloc"]), "the node")

    def crash_node(self) -> None:
        """Kills the node's daemon and everything that it had started, as a power failure does.

        All of them are halted first, daemons before tasks: one that outlived a task would tell the controller that the
        task was killed, which no failing node does, and the job would be over instead of queued again.
        """
        node = self.processes.pop("node")
        found = (node.pid, *_tree(node.pid), *self._steps())
        for fatal in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, fatal)
        node.wait()

    def _steps(self) -> list[int]:
        """The daemons of running steps, which are nobody's children, and then what they started."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if path.read_bytes().startswith(b"slurmstepd") and self._is_ours(int(path.parent.name)):
                    found.append(int(path.parent.name))
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                environ = path.read_bytes()
                if f"SLURM_CONF={self.configuration}".encode() in environ and b"SLURM_JOB_ID=" in environ:
                    found.append(int(path.parent.name))
        return [pid for pid in found if pid != os.getpid()]

    def _is_ours(self, pid: int) -> bool:
        """Whether a step's daemon has this cluster's log open."""
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link).startswith(str(self.folder)):
                    return True
        return False

    def call(self, *arguments: str) -> str:
        """What a command of SLURM prints; empty where it failed."""
        done = subprocess.run(arguments, capture_output=True, text=True, env=self.environment, timeout=120)
        return done.stdout if done.returncode == 0 else ""

    def stop(self) -> None:
        """Ends all tasks and daemons."""
        if "controller" in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.call("scancel", "--signal=KILL", "--full", "--user", pwd.getpwuid(os.getuid()).pw_name)
        for pid in self._steps():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in reversed(list(self.processes.values())):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str, arguments: list[str]) -> None:
        with open(self.folder / f"{name}.out", "ab") as out:
            self.processes[name] = subprocess.Popen(arguments, stdout=out, stderr=out, env=self.environment)


def _tree(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *_tree(child)]
    return found


def missing_programs() -> list[str]:
    """What of SLURM and munge is not installed."""
    return [n for n in PROGRAMS if not (shutil.which(n) or shutil.which(n, path="/usr/sbin:/sbin"))]
