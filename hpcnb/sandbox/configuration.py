"""The text of every configuration file of a sandbox: values in, text out."""

from __future__ import annotations

from hpcnb.sandbox.plan import HOST, Plan

# Slurm's own (3 s, 60 s and 30 s between looks at the queue) suit a machine with thousands of users.
_EAGER = "SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=1000,bf_interval=1,bf_continue"


def slurm_conf(plan: Plan) -> str:
    """Render slurm.conf: nodes that are processes of one user on one machine."""
    paths, size = plan.paths, plan.size
    # With this, daemons and srun listen where the machine's name leads, and not everywhere. A step calls srun back
    # at the address that srun called from, which is 127.0.0.1 on every machine: the two must be the same.
    binding = ["CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"] if plan.bound else []
    scheduling = [] if size.default_scheduling else [_EAGER]
    lines = [
        "ClusterName=sandbox",
        f"SlurmctldHost={plan.machine}(127.0.0.1)",
        f"SlurmctldPort={plan.slurmctld_port}",
        *binding,
        f"SlurmUser={plan.user}",
        f"SlurmdUser={plan.user}",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        # A requeued job may start cred_expire + 1 s later: 121 s by default.
        f"AuthInfo=socket={plan.munge_socket},cred_expire=10",
        f"StateSaveLocation={paths.state}",
        f"SlurmdSpoolDir={plan.run}/%n",
        f"SlurmctldPidFile={plan.run}/slurmctld.pid",
        f"SlurmdPidFile={plan.run}/slurmd-%n.pid",
        f"SlurmctldLogFile={paths.log('slurmctld')}",
        f"SlurmdLogFile={paths.logs}/%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=2",
        "JobAcctGatherParams=OverMemoryKill",
        "AccountingStorageType=accounting_storage/none",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={paths.log('jobcomp')}",
        "SchedulerType=sched/backfill",
        *scheduling,
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        # Nothing is preempted while all partitions are of one tier.
        "PreemptType=preempt/partition_prio",
        "PreemptMode=CANCEL",
        "SlurmdParameters=config_overrides",
        f"DefMemPerCPU={max(1, size.memory_per_node_mib // size.cores_per_node)}",
        "PropagateResourceLimitsExcept=ALL",
        "ReturnToService=2",
        "SlurmdTimeout=15",
        "KillWait=5",
        "MinJobAge=300",
    ]
    lines += [
        f"NodeName={node} NodeHostname={plan.machine} NodeAddr=127.0.0.1 Port={port}"
        f" Sockets=1 CoresPerSocket={size.cores_per_node} RealMemory={size.memory_per_node_mib} State=UNKNOWN"
        for node, port in plan.nodes.items()
    ]
    lines += [
        "PartitionName=main Nodes=ALL Default=YES DefaultTime=10 MaxTime=1-00:00:00 State=UP",
        "PartitionName=debug Nodes=ALL DefaultTime=10 MaxTime=30 MaxNodes=1 State=UP",
    ]
    return "\n".join(lines) + "\n"


def sshd_config(plan: Plan) -> str:
    """Render sshd_config: one user, one key, and Slurm's commands at hand."""
    paths = plan.paths
    lines = [
        f"Port {plan.sshd_port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {paths.host_key}",
        "PidFile none",
        f"AuthorizedKeysFile {paths.user_key}.pub",
        # It looks at every directory above; ours is 0700, but it may lie in /tmp.
        "StrictModes no",
        f"UsePAM {'yes' if plan.pam else 'no'}",
        f"PermitRootLogin {'prohibit-password' if plan.root else 'no'}",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PrintMotd no",
        "MaxStartups 100",
        "MaxSessions 100",
        # Only the first SetEnv counts.
        f'SetEnv SLURM_CONF={paths.slurm_conf} "PATH={plan.path}"',
        "Subsystem sftp internal-sftp",
    ]
    return "\n".join(lines) + "\n"


def ssh_config(plan: Plan) -> str:
    """Render the client's side: an alias that logs in without a question."""
    paths = plan.paths
    lines = [
        f"Host {HOST}",
        "  HostName 127.0.0.1",
        f"  Port {plan.sshd_port}",
        f"  User {plan.user}",
        f"  IdentityFile {paths.user_key}",
        "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {paths.known_hosts}",
        "  StrictHostKeyChecking yes",
    ]
    return "\n".join(lines) + "\n"


def known_hosts(plan: Plan, host_key: str) -> str:
    """Render known_hosts from the content of the host key's ``.pub`` file."""
    kind, key = host_key.split()[:2]
    return f"[127.0.0.1]:{plan.sshd_port} {kind} {key}\n"
