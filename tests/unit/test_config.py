"""The configuration: what is read, what is refused, and how a request is put together."""

from __future__ import annotations

import sys
from pathlib import Path

import dask.config
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import hpcnb
from hpcnb.config import Settings, SiteConfig, cluster_spec, load
from hpcnb.errors import ConfigError
from hpcnb.model import ClusterSpec, Resources

OCTOPUS = """
hpcnb:
  default-site: octopus
  sites:
    octopus:
      host: octopus.example.org
      python: ~/envs/hpc/bin/python
      partition: debug
      account: 1234
      walltime: 2h
      memory-per-worker: 16GiB
      scratch: $SCRATCH
      setup: |
        module load python
        conda activate hpc
      options:
        --constraint: haswell
        --exclusive:
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The only folder of configuration files, empty, with no variables set."""
    monkeypatch.setattr(dask.config, "paths", [str(tmp_path)])
    for name in [name for name in dask.config.os.environ if name.startswith("DASK_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def file(folder):
    """A function that writes the user's file."""

    def write(text):
        path = folder / "hpcnb.yaml"
        path.write_text(text)
        return path

    return write


def refused(*parts):
    """Assert that loading is refused with a message that has all these parts."""
    with pytest.raises(ConfigError) as caught:
        load()
    for part in parts:
        assert part in str(caught.value)


def site(**keys):
    return SiteConfig.model_validate(
        {"name": "octopus", **{key.replace("_", "-"): value for key, value in keys.items()}}
    )


# ---- reading


def test_without_a_file_there_is_this_machine():
    """Nobody needs a file: site local is a plain process of this interpreter."""
    local = load().site()
    assert (local.name, local.host, local.batch, local.python) == ("local", "", "process", sys.executable)
    assert local.idle_timeout == 600


def test_a_site_is_read_whole(file):
    """Every value of a site arrives in its own type, what is not written has its default."""
    file(OCTOPUS)
    octopus = load().site()
    assert octopus.name == "octopus"
    assert octopus.account == "1234"
    assert octopus.walltime == 7200
    assert octopus.memory_per_worker == 2**34
    assert octopus.setup == ("module load python", "conda activate hpc")
    assert octopus.options == {"--constraint": "haswell", "--exclusive": ""}
    assert (octopus.batch, octopus.nodes, octopus.idle_timeout) == ("slurm", 1, 1800)


def test_the_python_elsewhere_is_python3(file):
    """A site with a host has its own python3; one without is this machine, with this interpreter."""
    file("hpcnb: {sites: {far: {host: far}, here: }}")
    assert load().site("far").python == "python3"
    assert load().site("here").python == sys.executable


def test_local_can_be_changed_in_part(file):
    """A file that says one thing of site local leaves the rest of it alone."""
    file("hpcnb: {sites: {local: {walltime: 5m}}}")
    assert (load().site().walltime, load().site().batch) == (300, "process")


def test_an_edit_is_seen_at_once(file):
    """The files are read anew each time: a correction needs no new kernel."""
    file("hpcnb: {default-site: octopuss}")
    refused("octopuss")
    file(OCTOPUS)
    assert load().default_site == "octopus"


def test_underscores_are_hyphens(file):
    """Dask accepts both spellings of a key, so do we, and they are one key."""
    file("hpcnb: {default_site: here, sites: {here: {idle_timeout: 90}}}")
    assert load().site().idle_timeout == 90


def test_a_variable_wins_over_a_file(file, monkeypatch):
    """DASK_HPCNB__… overrides what a file says."""
    file(OCTOPUS)
    monkeypatch.setenv("DASK_HPCNB__SITES__OCTOPUS__WALLTIME", "00:30:00")
    monkeypatch.setenv("DASK_HPCNB__DEFAULT_SITE", "local")
    assert load().default_site == "local"
    assert load().site("octopus").walltime == 1800


def test_null_takes_back_what_a_lesser_file_said(folder):
    """A user's null undoes the administrator's value."""
    (folder / "a.yaml").write_text("hpcnb: {sites: {octopus: {account: m1}}}")
    (folder / "b.yaml").write_text("hpcnb: {sites: {octopus: {account: null}}}")
    assert load().site("octopus").account == ""


def test_options_of_two_files_are_joined(folder):
    """A user's options join the administrator's."""
    (folder / "a.yaml").write_text("hpcnb: {sites: {my-site: {options: {--x: 1, --y: 1}}}}")
    (folder / "b.yaml").write_text("hpcnb: {sites: {my_site: {options: {--y: 2}}}}")
    assert load().site("my-site").options == {"--x": "1", "--y": "2"}


def test_the_documented_defaults_are_the_schemas():
    """hpcnb.yaml names every key, with the default that the schema has."""
    text = Path(hpcnb.__file__).with_name("hpcnb.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(text)["hpcnb"]
    assert sorted(written) == Settings.spelling()
    local = written["sites"]["local"]
    assert sorted([*local, "name"]) == SiteConfig.spelling()
    own = {"name": "local", "batch": "process", "idle-timeout": "10m", "walltime": "30d"}
    assert {key: str(local[key]) for key in own if key != "name"} == {k: v for k, v in own.items() if k != "name"}
    assert load().sites == {"local": SiteConfig.model_validate(own)}


# ---- refusing


def test_an_unknown_key_is_named_with_its_file_and_its_neighbour(file):
    """A misspelt key is refused with the file, the key, what was meant, and all that is allowed."""
    path = file("hpcnb: {sites: {octopus: {wall-time: 1h}}}")
    refused("hpcnb.sites.octopus", "'wall-time'", str(path), "Did you mean walltime?", "Allowed: account, batch,")


def test_the_file_at_fault_is_named_among_several(folder):
    """Of two files the one with the bad value is named, even where the other has the same site."""
    (folder / "a.yaml").write_text("hpcnb: {sites: {octopus: {walltime: 1x}}}")
    (folder / "b.yaml").write_text("hpcnb: {sites: {octopus: {nodes: 2}}}")
    refused("hpcnb.sites.octopus.walltime: '1x' is not a duration", str(folder / "a.yaml"), "1h30m")


def test_a_variable_at_fault_is_named(file, monkeypatch):
    """A bad value that came from the environment is not blamed on a file."""
    file(OCTOPUS)
    monkeypatch.setenv("DASK_HPCNB__SITES__OCTOPUS__NODES", "none of them")
    refused("hpcnb.sites.octopus.nodes: 'none of them'", "variables DASK_HPCNB__")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hpcnb: {site: {}}", ["hpcnb has an unknown key 'site'", "Did you mean sites?"]),
        ("hpcnb: [local]", ["hpcnb is ['local']", "indented"]),
        ("hpcnb: {sites: octopus}", ["hpcnb.sites is 'octopus'"]),
        ("hpcnb: {sites: {octopus: host}}", ["hpcnb.sites.octopus is 'host'"]),
        ("hpcnb: {sites: {octopus: {name: x}}}", ["unknown key 'name'"]),
        ("hpcnb: {sites: {o c: {}}}", ["'o c' is not allowed"]),
        ("hpcnb: {sites: {-o: {}}}", ["'-o' is not allowed"]),
        ("hpcnb: {default-site: local1}", ["there is no site 'local1'", "Did you mean local?"]),
        ("hpcnb: {sites: {o: {batch: pbs}}}", ["hpcnb.sites.o.batch: 'pbs'", "'slurm' or 'process'"]),
        ("hpcnb: {sites: {o: {memory-per-node: 64}}}", ["o.memory-per-node: 64 is not an amount of memory", "GiB"]),
        ("hpcnb: {sites: {o: {walltime: 0}}}", ["o.walltime: 0", "greater than or equal to 1"]),
        ("hpcnb: {sites: {o: {nodes: yes}}}", ["o.nodes: True is not a number"]),
        ("hpcnb: {sites: {o: {account: yes}}}", ["o.account: True"]),
        ('hpcnb: {sites: {o: {host: "-oProxyCommand=x"}}}', ["o.host: '-oProxyCommand=x' is not allowed"]),
        ('hpcnb: {sites: {o: {setup: ["a\\nb"]}}}', ["o.setup.0", "one line"]),
        ("hpcnb: {sites: {o: {options: {-p: x}}}}", ["o.options: '-p' is not an option"]),
        ('hpcnb: {sites: {o: {options: {--x: "a\\nb"}}}}', ["o.options.--x", "one line"]),
        ("hpcnb: {sites: {o: {options: [a]}}}", ["o.options: ['a']", "dictionary"]),
        ("hpcnb: {", ["is not YAML", "hpcnb.yaml"]),
        ("sites: {o: {host: x}}", ["sites stands outside of hpcnb", "`hpcnb:`"]),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(file, text, parts):
    """Each mistake names the file, the key, what was found and what is allowed."""
    path = file(text)
    refused(str(path), *parts)


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries({}, optional={"default-site": NONSENSE, "sites": NONSENSE})
    | st.fixed_dictionaries(
        {
            "sites": st.dictionaries(
                st.sampled_from(["local", "o"]) | st.text(),
                st.dictionaries(st.sampled_from(SiteConfig.spelling()), NONSENSE),
            )
        }
    )
)
def test_nonsense_is_settings_or_a_config_error(tmp_path_factory, data):
    """Whatever a file holds, the answer is settings or a ConfigError."""
    path = tmp_path_factory.mktemp("nonsense") / "hpcnb.yaml"
    path.write_text(yaml.safe_dump({"hpcnb": data}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask.config, "paths", [str(path)])
        try:
            settings = load()
        except ConfigError:
            return
    assert settings.default_site in settings.sites


def test_an_unknown_site_is_answered_with_those_there_are():
    """Asking for a site that is not configured names its neighbour, all sites, and the file."""
    with pytest.raises(ConfigError) as caught:
        load().site("locl")
    assert "Did you mean local?" in caught.value.remedy
    assert "hpcnb.yaml" in caught.value.remedy


# ---- asking


def test_a_request_wins_over_the_site():
    """What a user asks replaces the site's value; what they do not ask comes from the site."""
    spec = cluster_spec(
        site(partition="debug", walltime="2h", account="m1"), nodes="2", walltime="30m", name="fit", qos=None
    )
    assert spec == ClusterSpec(
        site="octopus",
        name="fit",
        resources=Resources(nodes=2, walltime=1800, partition="debug", account="m1"),
    )


def test_options_are_added_to_the_sites():
    """A user's options join the site's and win where both have one."""
    entry = site(options={"--constraint": "haswell", "--exclusive": None})
    spec = cluster_spec(entry, options={"--constraint": "skylake", "--nice": 5})
    assert spec.resources.options == {"--constraint": "skylake", "--exclusive": "", "--nice": "5"}


@pytest.mark.parametrize(
    ("keys", "workers", "cores_per_node"),
    [
        ({}, None, None),
        ({"workers_per_node": 4, "cores_per_worker": 8}, 4, 32),
        ({"cores_per_worker": 8}, 1, 8),
        ({"cores_per_worker": 8, "cores_per_node": 20}, 2, 20),
        ({"gpus_per_worker": 1, "gpus_per_node": 4}, 4, None),
        ({"cores_per_node": 16}, None, 16),
    ],
)
def test_a_node_is_cut_into_workers(keys, workers, cores_per_node):
    """Slurm gives what is asked for, so what the workers need together is asked for."""
    spec = cluster_spec(site(), **keys)
    assert (spec.workers_per_node, spec.resources.cores_per_node) == (workers, cores_per_node)


def test_a_machine_without_a_batch_system_decides_for_itself():
    """Where nothing is allocated the pilot sees the node, and cuts it."""
    assert cluster_spec(site(batch="process"), cores_per_worker=1).workers_per_node is None


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"wall_time": "1h"}, ["no argument 'wall_time'", "Did you mean walltime?", "workers_per_node"]),
        ({"host": "x"}, ["no argument 'host'"]),
        ({"nodes": 0}, ["nodes: 0", "greater than or equal to 1"]),
        ({"nodes": 1.5}, ["nodes: 1.5"]),
        ({"walltime": "soon"}, ["walltime: 'soon' is not a duration", "1h30m"]),
        ({"memory_per_worker": "16G"}, ["memory_per_worker: '16G' is not an amount of memory", "GiB"]),
        ({"name": "a b"}, ["name: 'a b' is not allowed"]),
        ({"name": "x" * 65}, ["up to 64"]),
        ({"partition": "gpu; rm"}, ["partition: 'gpu; rm' is not allowed"]),
        ({"account": "$(id)"}, ["account: '$(id)' is not allowed"]),
        ({"options": {"--wrap x": "y"}}, ["options: '--wrap x' is not an option"]),
        ({"directory": "a\0b"}, ["directory", "one line"]),
        ({"workers_per_node": 8, "cores_per_worker": 4, "cores_per_node": 16}, ["more than cores_per_node=16"]),
        ({"gpus_per_worker": 2, "gpus_per_node": 1}, ["more than gpus_per_node=1"]),
    ],
)
def test_a_wrong_request_is_refused_by_argument(keys, parts):
    """A mistake in a call names the argument, what was found and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        cluster_spec(site(), **keys)
    for part in parts:
        assert part in str(caught.value)


@given(
    st.dictionaries(st.sampled_from(["nodes", "walltime", "name", "partition", "options", "memory_per_node"]), NONSENSE)
)
def test_any_request_is_a_spec_or_a_config_error(keys):
    """Whatever a call holds, the answer is a spec that travels as JSON, or a ConfigError."""
    try:
        spec = cluster_spec(site(), **keys)
    except ConfigError:
        return
    assert ClusterSpec.from_json(spec.to_json()) == spec
