"""The text of the lab's files: users, names, Slurm, sshd, firewall. Values in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.lab.host import User

OUTER, INNER = "198.18.0", "198.18.1"
"""The network before the login node, and the one behind it: addresses that are set aside for tests like these."""
LAPTOP_ADDRESS = f"{OUTER}.2"
FACES = {
    "login": f"{OUTER}.1",
    "login-nofwd": f"{OUTER}.11",
    "login-sftp": f"{OUTER}.12",
    "login-otp": f"{OUTER}.13",
}
"""The login node as the laptop sees it: each name has an address, and an sshd of its own at port 22."""

_KEYS_ONLY = [
    "PermitRootLogin no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "UsePAM no",
    "PrintMotd no",
    "LogLevel VERBOSE",
    "Subsystem sftp internal-sftp",
    "MaxStartups 100",
]
_DIFFERENCE: Mapping[str, list[str]] = {
    "login": [],
    "login-nofwd": ["AllowTcpForwarding no", "AllowStreamLocalForwarding no"],
    "login-otp": ["UsePAM yes", "KbdInteractiveAuthentication yes", "AuthenticationMethods keyboard-interactive:pam"],
    "login-sftp": ["AllowTcpForwarding no", "AllowStreamLocalForwarding no", "ForceCommand internal-sftp"],
}


def node_address(number: int) -> str:
    """The address of a node, counted from 1."""
    return f"{INNER}.{10 + number}"


def passwd(system: str, users: Iterable[User]) -> str:
    """The system's own accounts, and ours."""
    lines = [f"{u.name}:x:{u.uid}:{u.uid}::{u.home}:/bin/bash" for u in users]
    return system + "".join(f"{line}\n" for line in lines)


def group(system: str, users: Iterable[User]) -> str:
    """The same for groups: each user has one."""
    return system + "".join(f"{u.name}:x:{u.uid}:\n" for u in users)


def shadow(system: str, users: Iterable[User], password: str) -> str:
    """The password of all of them, encrypted."""
    return system + "".join(f"{u.name}:{password}:20000::::::\n" for u in users)


def hosts(login: Mapping[str, str], nodes: Iterable[str]) -> str:
    """Who is where."""
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in login.items())]
    lines += [f"{node_address(i)} {node}" for i, node in enumerate(nodes, 1)]
    return "\n".join(lines) + "\n"


def slurm_conf(nodes: Iterable[str], *, cores: int, memory: int) -> str:
    """A Slurm of several hosts, whose nodes claim to have what they are told to have."""
    lines = [
        "ClusterName=lab",
        "SlurmctldHost=login",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        "AuthInfo=cred_expire=10",
        "SlurmUser=slurm",
        "StateSaveLocation=/var/spool/slurmctld",
        "SlurmdSpoolDir=/var/spool/slurmd",
        "SlurmctldPidFile=/run/slurmctld.pid",
        "SlurmdPidFile=/run/slurmd.pid",
        "SlurmctldLogFile=/var/log/slurmctld.log",
        "SlurmdLogFile=/var/log/slurmd.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "JobAcctGatherType=jobacct_gather/linux",
        "AccountingStorageType=accounting_storage/none",
        "JobCompType=jobcomp/none",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=1000,bf_interval=1,bf_continue",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SlurmdParameters=config_overrides",
        f"DefMemPerCPU={memory // cores}",
        "PropagateResourceLimitsExcept=ALL",
        "ReturnToService=2",
        "SlurmdTimeout=15",
        "KillWait=5",
        "MinJobAge=300",
    ]
    lines += [
        f"NodeName={node} NodeAddr={node_address(i)} Sockets=1 CoresPerSocket={cores} RealMemory={memory} State=UNKNOWN"
        for i, node in enumerate(nodes, 1)
    ]
    lines += ["PartitionName=main Nodes=ALL Default=YES DefaultTime=10 MaxTime=1-00:00:00 State=UP"]
    return "\n".join(lines) + "\n"


def sshd_config(face: str, users: Iterable[User]) -> str:
    """One face of the login node."""
    listen = [FACES[face], *([f"{INNER}.1"] if face == "login" else [])]
    lines = [
        "HostKey /etc/ssh/lab_host_key",
        f"PidFile /run/sshd-{face}.pid",
        *(f"ListenAddress {address}:22" for address in listen),
        f"AllowUsers {' '.join(user.name for user in users)}",
        *_DIFFERENCE[face],  # first, for the first of each counts
        *_KEYS_ONLY,
    ]
    return "\n".join(lines) + "\n"


def ssh_config(users: Mapping[str, User]) -> str:
    """The laptop's ``~/.ssh/config``: who logs in where without a question."""
    lines = []
    for alias, user in users.items():
        lines += [
            f"Host {alias}",
            f"  User {user.name}",
            f"  IdentityFile ~/.ssh/id_{user.name}",
            "  IdentitiesOnly yes",
        ]
    return "\n".join(lines) + "\n"


FIREWALL = """
table inet lab {
  chain incoming { type filter hook input priority 0; policy accept;
    iifname { "ext", "wire" } ct state established,related accept
    iifname { "ext", "wire" } tcp dport 22 accept
    iifname { "ext", "wire" } drop
  }
  chain passing { type filter hook forward priority 0; policy drop;
    iifname "br0" oifname "br0" accept
  }
}
"""
"""On the login node, which forwards: the laptop has a route to the nodes, and it is this that stops it."""

BLACK_HOLE = """
table inet cut {
  chain incoming { type filter hook input priority -10; policy drop; iifname "lo" accept; }
  chain outgoing { type filter hook output priority -10; policy drop; oifname "lo" accept; }
}
"""
"""On the laptop: all that it sends and should get is lost, and nobody is told."""

PAM_OTP = """
auth required pam_unix.so
auth required pam_google_authenticator.so
account required pam_permit.so
session required pam_permit.so
"""
"""What the face *login-otp* asks: the password, then a one-time code."""

OTP_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
OTP = f"""{OTP_SECRET}
" WINDOW_SIZE 3
" TOTP_AUTH
"""
"""The file ``~/.google_authenticator``, from which the codes come."""

REFUSAL = """
table inet refusal {{
  chain outgoing {{ type filter hook output priority -10; policy accept;
    ip daddr {node} tcp dport 6818 accept
    ip daddr {node} tcp sport 6817 accept
    ip daddr {node} meta l4proto tcp reject with tcp reset
  }}
}}
"""
"""On the login node: but for Slurm's part, whatever it says to a node is answered with a reset, as by one that was switched off and on."""
