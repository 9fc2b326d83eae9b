"""What the agent remembers of its clusters."""

from __future__ import annotations

import json
import logging
import os
import stat
from dataclasses import replace

import pytest

from hpcnb.agent import record
from hpcnb.agent.record import ClusterRecord, JobRecord
from hpcnb.model import ClusterSpec, ClusterStatus, Resources, State

SPEC = ClusterSpec(site="octopus", name="fit", resources=Resources())


def a_record(number=0, state=State.READY):
    """A record of one cluster."""
    status = ClusterStatus(id=f"{number:016x}", spec=SPEC, state=state, created=float(number))
    return ClusterRecord(
        status=status, authority_certificate="certificate", authority_key="the key", secret="the secret"
    )


def job(index, job_id=""):
    """A record of one of its jobs."""
    return JobRecord(index=index, token=f"{index:032x}", path=f"/runs/{index}", job_id=job_id)


def test_a_record_comes_back(isolated):
    """What was saved is loaded again, jobs and secrets included."""
    kept = a_record().with_job(job(0, "117"))
    record.save(kept)
    assert record.load_all() == [kept]


def test_records_come_oldest_first(isolated):
    """Clusters keep the order in which they were asked for."""
    for number in (3, 1, 2):
        record.save(a_record(number))
    assert [kept.status.created for kept in record.load_all()] == [1, 2, 3]


def test_a_record_is_private(isolated):
    """The file with the authority's key is readable by its owner alone, also where the umask is generous."""
    before = os.umask(0)
    try:
        record.save(a_record())
    finally:
        os.umask(before)
    (path,) = (isolated.data / "clusters").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_record_does_not_show_its_secrets():
    """The repr, which lands in logs, holds neither key nor secret."""
    assert repr(a_record()) == "ClusterRecord(0000000000000000, 'fit', ready)"


def test_what_has_ended_keeps_no_secret():
    """Of a cluster that has ended, key and secret are forgotten."""
    kept = a_record().without_secrets()
    assert (kept.authority_key, kept.secret) == ("", "")
    assert "the " not in json.dumps(kept.to_json())


def test_jobs_are_kept_by_index():
    """A job that is saved again replaces its earlier self, and the leading one stays first."""
    kept = a_record().with_job(job(1)).with_job(job(0)).with_job(job(1, "118"))
    assert [(j.index, j.job_id) for j in kept.jobs] == [(0, ""), (1, "118")]
    assert [j.index for j in kept.without_job(1).jobs] == [0]


def test_old_endings_are_forgotten(isolated):
    """Of those that have ended only the last few are remembered; what lives is never forgotten."""
    record.save(a_record(0))
    for number in range(1, record.KEPT + 4):
        record.save(a_record(number, State.ENDED))
    assert [kept.status.created for kept in record.load_all()] == [0, *range(4, record.KEPT + 4)]
    assert len(list((isolated.data / "clusters").iterdir())) == record.KEPT + 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"status": 1}', '{"status": {"id": "x"}}', "\0"])
def test_a_broken_record_hides_no_other(isolated, caplog, text):
    """A record that cannot be read is named in the log and left alone; the agent starts with the others."""
    record.save(a_record())
    broken = isolated.data / "clusters" / "ffffffffffffffff.json"
    broken.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert record.load_all() == [a_record()]
    assert str(broken) in caplog.text
    assert broken.exists()


def test_a_record_of_a_later_version_is_no_hindrance(isolated):
    """A state or a field that this version does not know makes no other cluster disappear."""
    record.save(a_record(1))
    later = a_record(2).to_json()
    later["status"]["state"] = "hibernating"
    (isolated.data / "clusters" / "later.json").write_text(json.dumps(later))
    assert [kept.status.created for kept in record.load_all()] == [1]


def test_a_failed_write_leaves_the_old_record(isolated, monkeypatch):
    """When the disk is full, the record that was there is still whole."""
    record.save(a_record())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    changed = a_record()
    with pytest.raises(OSError, match="No space left"):
        record.save(replace(changed, status=replace(changed.status, state=State.DRAINING)))
    assert record.load_all() == [a_record()]
