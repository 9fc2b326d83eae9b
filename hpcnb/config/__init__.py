"""Configuration: the sites, read from Dask's YAML files and checked, and what a user asks of a cluster.

The files are those of Dask (``/etc/dask``, ``~/.config/dask/hpcnb.yaml``, ``$DASK_CONFIG``), then the variables
``DASK_HPCNB__…``, later ones winning. `load` reads them anew each time, so that kernel and agent see an edit
at once; what `dask.config.set` says in one process is not seen, for the other could not see it.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hpcnb.config.values import Count, Duration, Line, Lines, Memory, Name, Options, Positive, Tags, Values, Word
from hpcnb.errors import ConfigError, NotReady
from hpcnb.model import ClusterSpec, Resources
from hpcnb.units import format_duration, parse_duration, parse_memory, shown


def _not_yaml(error: ValueError) -> ConfigError:
    return ConfigError(
        "a file of the configuration is not YAML", evidence=str(error), remedy="Indent by spaces, not tabs."
    )


try:
    import dask.config
except ValueError as error:  # it reads all files while it is imported
    raise _not_yaml(error) from None

__all__ = [
    "Settings",
    "SiteConfig",
    "cluster_spec",
    "format_duration",
    "load",
    "parse_duration",
    "parse_memory",
]

# ---- schema --------------------------------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        coerce_numbers_to_str=True,  # an account may be 1234
    )

    @classmethod
    def spelling(cls) -> list[str]:
        """The keys as the file spells them."""
        return sorted(field.alias or name for name, field in cls.model_fields.items())


class _Wishes(_Section):
    """What may be asked of one cluster; a site's entry gives the default of each."""

    nodes: Positive = 1
    walltime: Duration = 3600
    partition: Word = ""
    account: Word = ""
    qos: Word = ""
    cores_per_node: Positive | None = None
    memory_per_node: Memory | None = None
    gpus_per_node: Count = 0
    workers_per_node: Positive | None = None
    cores_per_worker: Positive | None = None
    memory_per_worker: Memory | None = None
    gpus_per_worker: Count = 0
    idle_timeout: Duration = 1800
    options: Options = Field(default_factory=dict)


class SiteConfig(_Wishes):
    """One site: how it is reached, its batch system, its environment, and the defaults of its clusters.

    Parameters
    ----------
    name : str
        What the user calls it: its key in the file.
    host : str
        ``[user@]host`` or an alias of the OpenSSH configuration; empty: this machine.
    ssh_config : str
        An OpenSSH configuration to read instead of ``~/.ssh/config``.
    connect_timeout : int or None
        Seconds for a connection to be made; None: ``ConnectTimeout`` of the OpenSSH configuration, else 20.
    link : str
        The route from here to the pilot: ``direct exec srun reverse mailbox``, or ``auto`` to find one.
    batch : str
        ``slurm``, or ``process`` for a machine without a batch system.
    python : str
        The interpreter at the site; by default this one on this machine, elsewhere ``python3``.
    setup : tuple of str
        Shell lines that make `python` usable (``module load python``).
    home : str
        Where hpcnb keeps its files at the site; empty: ``$HPCNB_HOME`` there, else ``~/.hpcnb``.
    scratch : str
        Where large temporary files go at the site (``$SCRATCH``); empty: the node's own ``$TMPDIR``.
    cache_limit : int
        Bytes that results by content may have together at the site; those that were used longest ago go, and all that nobody
        has used for 30 days.
    software : tuple of str
        What tasks may ask for by ``software=``: names for what `setup` makes usable.
    features : tuple of str
        What they may ask for by ``feature=``, beside the features that Slurm knows of a node.
    settings : dict of str
        What the templates of a drop box may name: ``containers: /sw/sif`` is their ``<<containers>>``.
    nodes, walltime, partition, account, qos, cores_per_node, memory_per_node, gpus_per_node, options
        The site's defaults for `Resources`.
    workers_per_node, cores_per_worker, memory_per_worker, gpus_per_worker, idle_timeout
        The site's defaults for `ClusterSpec`.
    """

    name: Name
    host: Word = ""
    ssh_config: Line = ""
    connect_timeout: Duration | None = None
    link: Literal["auto", "direct", "exec", "srun", "reverse", "mailbox"] = "auto"
    batch: Literal["slurm", "process"] = "slurm"
    python: Line = ""
    setup: Lines = ()
    home: Line = ""
    scratch: Line = ""
    cache_limit: Memory = 10 * 2**30
    software: Tags = ()
    features: Tags = ()
    settings: Values = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_python(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("python"):
            return {**data, "python": "python3" if data.get("host") else sys.executable}
        return data


class Settings(_Section):
    """All that is configured.

    Parameters
    ----------
    default_site : str
        The site of those who name none.
    sites : dict of str to SiteConfig
        By name; ``local``, this machine, is always among them.
    """

    default_site: str = "local"
    sites: dict[str, SiteConfig]

    def site(self, name: str = "") -> SiteConfig:
        """Return the entry of a site, of the default site when no name is given."""
        name = name or self.default_site
        if name not in self.sites:
            place = os.path.join(dask.config.PATH, "hpcnb.yaml")  # noqa: PTH118 - for a message
            raise ConfigError(
                f"there is no site {shown(name)}",
                remedy=f"{_pick(name, self.sites)} Sites are in {place}: `hpcnb: {{sites: {{NAME: {{host: LOGIN-NODE}}}}}}` is one.",
            )
        return self.sites[name]


# ---- reading -------------------------------------------------------------------------------------------------


class _Source(NamedTuple):
    name: str
    data: dict[str, Any]


def load() -> Settings:
    """Read and check the configuration.

    Raises
    ------
    ConfigError
        Naming the file, the key, what was found and what is allowed.
    """
    sources = _sources()
    try:
        settings = Settings.model_validate(_merged(sources))
    except ValidationError as error:
        raise _refusal(error, sources) from None
    if settings.default_site not in settings.sites:
        raise ConfigError(
            f"hpcnb.default-site: there is no site {shown(settings.default_site)}",
            where=_origin(("default-site",), sources),
            remedy=_pick(settings.default_site, settings.sites),
        )
    return settings


def _merged(sources: list[_Source]) -> dict[str, Any]:
    """Lay the sources over each other, a site's options too."""
    top: dict[str, Any] = {}
    sites: dict[str, dict[str, Any]] = {}
    for source in sources:
        top |= source.data
        for spelled, entry in source.data["sites"].items():
            name = dask.config.canonical_name(spelled, sites)  # a variable cannot say my-site, only MY_SITE
            old = sites.get(name, {})
            sites[name] = old | entry
            both = old.get("options"), entry.get("options")
            if all(isinstance(options, dict) for options in both):
                sites[name]["options"] = both[0] | both[1]
    return _set(top) | {"sites": {name: _set(entry) | {"name": name} for name, entry in sites.items()}}


def _set(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is null: a key without a value has its default."""
    return {key: value for key, value in entry.items() if value is not None}


def _sources() -> list[_Source]:
    """Every place that says something of hpcnb, the least important first."""
    try:
        files = [(str(path), data) for path, data in dask.config.collect_yaml(dask.config.paths, return_paths=True)]
    except ValueError as error:
        raise _not_yaml(error) from None
    for path, data in files:
        if os.path.basename(path) == "hpcnb.yaml" and (stray := {*Settings.spelling()} & {*data}):  # noqa: PTH119 - see PTH109
            raise ConfigError(
                f"{', '.join(sorted(stray))} stands outside of hpcnb",
                where=path,
                remedy="Write `hpcnb:` as the first line, and indent what follows.",
            )
    defaults = resources.files("hpcnb").joinpath("hpcnb.yaml")
    if not defaults.is_file():  # what goes along to sites is without it
        raise NotReady(
            "this runs on a cluster, where hpcnb knows no sites and starts no clusters",
            remedy="Submit from the notebook, or from a script; a task has others run with `distributed.worker_client()`.",
        )
    default = yaml.safe_load(defaults.read_text(encoding="utf-8"))
    found = [("hpcnb's defaults", default), *files, ("variables DASK_HPCNB__…", dask.config.collect_env())]
    return [_Source(name, _checked(name, data["hpcnb"])) for name, data in found if data.get("hpcnb") is not None]


def _checked(where: str, data: Any) -> dict[str, Any]:
    """Check the sections and keys of one source, and spell the keys with hyphens."""
    top = _section(where, "hpcnb", data, Settings.spelling())
    keys = [key for key in SiteConfig.spelling() if key != "name"]
    sites = _section(where, "hpcnb.sites", top.get("sites"))
    sites = {name: _section(where, f"hpcnb.sites.{name}", site, keys) for name, site in sites.items()}
    return top | {"sites": sites}


def _section(where: str, path: str, data: Any, allowed: Collection[str] = ()) -> dict[str, Any]:
    if not isinstance(data, dict | None):
        raise ConfigError(
            f"{path} is {shown(data)}", where=where, remedy="Write `key: value` lines below it, indented."
        )
    keys = {key: str(key).replace("_", "-") if allowed else str(key) for key in data or {}}
    for key, spelled in keys.items():
        if allowed and spelled not in allowed:
            raise ConfigError(f"{path} has an unknown key {shown(key)}", where=where, remedy=_pick(spelled, allowed))
    return {keys[key]: value for key, value in (data or {}).items()}


def _pick(found: str, allowed: Collection[str]) -> str:
    close = difflib.get_close_matches(found, list(allowed), n=1)
    return (f"Did you mean {close[0]}? " if close else "") + f"Allowed: {', '.join(sorted(allowed))}."


def _refusal(error: ValidationError, sources: list[_Source]) -> ConfigError:
    """Turn pydantic's first complaint into one that names the file, or the argument when there are no files."""
    found = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in found["loc"] if part != "[key]")
    cause = getattr(found.get("ctx", {}).get("error"), "__cause__", None)
    if found["type"] == "value_error":
        text = str(found["ctx"]["error"])
    else:
        text = f"{shown(found['input'])} is not allowed: {found['msg'][:1].lower()}{found['msg'][1:]}"
    return ConfigError(
        f"{'.'.join(('hpcnb', *path)) if sources else path[0].replace('-', '_')}: {text}",
        where=_origin(path, sources),
        remedy=cause.remedy if isinstance(cause, ConfigError) else "",
    )


def _origin(path: tuple[str, ...], sources: list[_Source]) -> str:
    """The most important source that says something at a path, or at the nearest section above it."""
    for depth in range(len(path), 0, -1):
        for source in sources[::-1]:
            if _says(source.data, path[:depth]):
                return source.name
    return ""


def _says(data: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(data, dict):
            return False
        key = dask.config.canonical_name(part, data)
        if key not in data:
            return False
        data = data[key]
    return True


# ---- what a user asks ----------------------------------------------------------------------------------------


def cluster_spec(site: SiteConfig, *, name: str = "", directory: str = "", **wishes: Any) -> ClusterSpec:
    """Put together what a user asks with what the site's entry says.

    Parameters
    ----------
    site : SiteConfig
    name : str
        Of the cluster; by default the site's.
    directory : str
        As in `ClusterSpec`.
    **wishes
        Any of ``nodes walltime partition account qos cores_per_node memory_per_node gpus_per_node workers_per_node
        cores_per_worker memory_per_worker gpus_per_worker idle_timeout options``, written as in the file; None is
        the same as not given. `options` are added to the site's.

    Raises
    ------
    ConfigError
        Naming the argument, what was found and what is allowed.
    """
    asked = _Asked.of(wishes | {"name": name or site.name, "directory": directory})
    merged = {key: getattr(asked if key in asked.model_fields_set else site, key) for key in _Wishes.model_fields}
    merged["options"] = site.options | asked.options
    workers = merged["workers_per_node"] = _workers(merged, site.batch)
    for thing in ("cores", "memory", "gpus"):
        per_worker, per_node = merged[f"{thing}_per_worker"], merged[f"{thing}_per_node"]
        if workers and per_worker:
            _check_fit(thing, workers, per_worker, per_node)
            merged[f"{thing}_per_node"] = per_node or workers * per_worker
    of_job = {key: merged.pop(key) for key in Resources.__dataclass_fields__}
    return ClusterSpec(
        site=site.name, name=asked.name, directory=asked.directory, resources=Resources(**of_job), **merged
    )


class _Asked(_Wishes):
    name: Name
    directory: Line = ""

    @classmethod
    def of(cls, wishes: dict[str, Any]) -> _Asked:
        for key in wishes:
            if key not in cls.model_fields:
                raise ConfigError(f"there is no argument {shown(key)}", remedy=_pick(key, cls.model_fields))
        try:
            return cls.model_validate(_set(wishes))
        except ValidationError as error:
            raise _refusal(error, []) from None


def _workers(wishes: Mapping[str, Any], batch: str) -> int | None:
    """How many workers a node has; None leaves it to the pilot, which sees the node."""
    pairs = [(wishes[f"{thing}_per_node"], wishes[f"{thing}_per_worker"]) for thing in ("cores", "memory", "gpus")]
    fits: list[int] = [per_node // per_worker for per_node, per_worker in pairs if per_node and per_worker]
    if (asked := wishes["workers_per_node"]) or fits:
        return int(asked or max(1, min(fits)))
    # Slurm gives what is asked for, so one worker's share has to be asked for.
    return 1 if batch == "slurm" and any(per_worker for _, per_worker in pairs) else None


def _check_fit(thing: str, workers: int, per_worker: int, per_node: int | None) -> None:
    if per_node and workers * per_worker > per_node:
        raise ConfigError(
            f"workers_per_node={workers} with {thing}_per_worker={per_worker} is more than {thing}_per_node={per_node}",
            remedy=f"Lower one of the first two, or raise {thing}_per_node.",
        )
