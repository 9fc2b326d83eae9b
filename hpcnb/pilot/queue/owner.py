"""The owner of a queue: the one who writes its tasks. It carries out what is in the inbox, and tells of it only what holds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hpcnb.errors import QueueError
from hpcnb.pilot.queue import requests
from hpcnb.pilot.queue.inbox import Inbox
from hpcnb.pilot.queue.lease import Fenced, Lease, Watch
from hpcnb.pilot.queue.pace import Pace
from hpcnb.pilot.queue.place import Place, read_json, written
from hpcnb.pilot.queue.states import TaskState
from hpcnb.pilot.queue.store import Store

MOST = 256
"""Requests that are carried out in one transaction."""


class Owner:
    """Who owns a queue, from `take` to `close`. Not safe for concurrent use: one thread calls it.

    Attributes
    ----------
    store : Store
    lease : Lease
    present : set of int
        The workers that are connected.
    """

    def __init__(self, place: Place, lease: Lease, store: Store) -> None:
        self.lease = lease
        self.store = store
        self._place = place
        self._inbox = Inbox(place)
        self.present: set[int] = set()
        self._published: Any = None
        self._pace = Pace()

    @classmethod
    def take(cls, place: Place, watch: Watch, about: dict[str, Any] | None = None) -> Owner | None:
        """Own the queue, if nobody does; None when somebody does.

        Parameters
        ----------
        about : dict, optional
            What workers and others are to know of this owner.
        """
        after = watch.claimable()
        lease = None if after is None else Lease.claim(place, after, about)
        if lease is None:
            return None
        try:
            return cls._begin(place, lease)
        except Fenced:
            lease.drop()
            return None
        except BaseException:
            lease.drop()  # silent, and in time somebody else tries
            raise

    @classmethod
    def _begin(cls, place: Place, lease: Lease) -> Owner:
        with _replaced(lease):
            store = Store(_adopted(place, lease), lease.fence)
        try:
            lease.confirm()
            return cls(place, lease, store)
        except BaseException:
            store.close()
            raise

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Change the store; when this ends, it may be told: it is on the disk, and was committed by the queue's owner.

        Raises
        ------
        Fenced
            Somebody else owns the queue; what was changed counts for nothing.
        """
        with _replaced(self.lease), self.store.transaction():
            yield
        self.lease.confirm()

    def serve(self) -> int:
        """Carry out what is in the inbox now; returns how many requests."""
        names = self._inbox.names()[:MOST]
        if not names:
            return 0
        with self.change():
            answers = [(name, self._carry_out(name)) for name in names]
        for name, answer in answers:
            if answer is not None:
                self._inbox.reply(name, answer)
        return len(names)

    def _carry_out(self, name: str) -> str | None:
        if (known := self.store.answered(name)) is not None:
            return known
        try:
            with self._inbox.opened(name) as file, self.store.part():
                op, value = requests.carry_out(self.store, file, self.present)
                if op == "status":
                    value["rate"] = self._pace.rate
                answer = json.dumps({"value": value})
                if op not in requests.READ_ONLY:
                    self.store.remember(name, answer)
        except FileNotFoundError:
            return None  # withdrawn
        except QueueError as exc:
            return json.dumps({"error": exc.to_json()})
        except (UnicodeDecodeError, PermissionError) as exc:
            return json.dumps({"error": QueueError("a request that cannot be read", evidence=str(exc)).to_json()})
        return answer

    def publish(self) -> None:
        """Leave the counts where they can be read without asking."""
        ended = (TaskState.SUCCEEDED, TaskState.FAILED)
        self._pace.saw(sum(self.store.counts[state] for state in ended))
        counts = {"paused": self.store.paused, "ntasks": {s.title: n for s, n in self.store.counts.items()}}
        if counts != self._published:
            written(self._place / "counts.json", counts)
            self._published = counts

    def close(self) -> None:
        """Let go of the queue."""
        self.publish()
        self._inbox.tidy()
        self.store.close()
        self.lease.release()

    def abandon(self) -> None:
        """End without a word: we were fenced, or could not write."""
        self.store.close()
        self.lease.drop()


@contextlib.contextmanager
def _replaced(lease: Lease) -> Iterator[None]:
    """Who cannot write because whoever owns the queue now has removed his file was fenced."""
    try:
        yield
    except (OSError, sqlite3.Error):
        lease.confirm()
        raise


# -- the store's file ---------------------------------------------------------------------------------------------------


def _adopted(place: Place, lease: Lease) -> Path:
    """The file that belongs to our number: that of the owner before us, when it has let go, else a copy of it.

    An owner that was only stopped goes on writing to its own file when it wakes up, and nobody reads that any more.
    """
    folder = place / "store"
    ours = folder / f"{lease.fence}.sqlite"
    while True:
        lease.confirm()
        numbers = {path: path.name.partition(".")[0] for path in folder.iterdir()}
        # Not what NFS leaves there.
        numbered = {path: int(number) for path, number in numbers.items() if number.isdecimal()}
        before = max((number for path, number in numbered.items() if path.suffix == ".sqlite"), default=0)
        source = folder / f"{before}.sqlite"
        if before == 0:
            return ours
        try:
            if before == lease.fence - 1 and lease.inherits:
                source.rename(ours)
            else:
                _copy(source, ours)
        except FileNotFoundError:
            continue  # whom we replace has woken up and renamed it; look again
        for old, number in numbered.items():
            if number < lease.fence:  # never a later one: we may be the one who was stopped
                old.unlink(missing_ok=True)
        return ours


def _copy(source: Path, ours: Path) -> None:
    """Copy a file that somebody may still write to, with its journal, as it was at one moment."""
    journal = Path(f"{ours}-journal")
    aside = ours.with_suffix(".new")
    try:
        while True:
            shutil.copyfile(source, aside)
            journal.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{source}-journal", journal)
            # Only when both were at rest from the first reading to the second are the copies of one moment.
            if _same(source, aside) and _same(Path(f"{source}-journal"), journal):
                break
        for path in (aside, journal):
            if path.exists():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
    except OSError:  # it is tried again, and what is left of each time would keep the disk full
        for path in (aside, journal):
            path.unlink(missing_ok=True)
        raise
    aside.rename(ours)


def _same(one: Path, other: Path) -> bool:
    return _digest(one) == _digest(other)


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except FileNotFoundError:
        return ""


# -- asking -------------------------------------------------------------------------------------------------------------


class Asker:
    """Asks a queue's owner, or becomes it for as long as one request takes.

    Parameters
    ----------
    place : Place
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._inbox = Inbox(place)
        self._watch = Watch(place)

    def ask(
        self,
        op: str,
        lines: Iterable[str] = (),
        *,
        name: str = "",
        patience: float = 120.0,
        **arguments: Any,
    ) -> Any:
        """Have a request carried out, and return what was answered.

        Parameters
        ----------
        name : str
            From `new_name`, for who may have to ask again and means the same request; it is carried out once.

        Raises
        ------
        QueueError
            What was asked for cannot be, or nobody answers.
        """
        name = self._inbox.put(op, arguments, lines, name=name)
        end = time.monotonic() + patience
        pause = 0.001
        try:
            while (answer := self._inbox.answer(name)) is None and time.monotonic() < end:
                if not self._own():
                    time.sleep(pause)
                    pause = min(pause * 1.5, 0.1)
        except BaseException:
            self._inbox.withdraw(name)
            raise
        if answer is None:
            self._inbox.withdraw(name)
            raise self._silent(patience)
        if "error" in answer:
            raise QueueError(**{key: answer["error"][key] for key in ("what", "where", "evidence", "remedy")})
        return answer["value"]

    def _own(self) -> bool:
        """Own the queue, if nobody does, while there are requests; whether we did."""
        try:
            owner = Owner.take(self._place, self._watch)
        except (OSError, sqlite3.Error) as exc:
            raise self._unwritable(exc) from exc
        if owner is None:
            return False
        try:
            while owner.serve():
                pass
            # What was asked for is done, and in time our silence says the same.
            with contextlib.suppress(OSError, sqlite3.Error):
                owner.close()
        except Fenced:
            pass
        except (OSError, sqlite3.Error) as exc:
            raise self._unwritable(exc) from exc
        finally:
            owner.abandon()  # also on Ctrl-C: a heart that beats on would keep the queue from all others
        return True

    def _unwritable(self, exc: Exception) -> QueueError:
        remedy = "Nothing was changed. Free some space there, or see to the file system; what is there is safe."
        return QueueError(
            f"queue {self._place.name!r} cannot be written",
            where=str(self._place.path),
            evidence=str(exc),
            remedy=remedy,
        )

    def _silent(self, patience: float) -> QueueError:
        owner = self._watch.owner() or {}
        return QueueError(
            f"the owner of queue {self._place.name!r} has not answered for {patience:.0f} s",
            where=f"process {owner.get('pid')} on {owner.get('host')}",
            remedy="The request was withdrawn; look at the job that drains the queue.",
        )


def last_counts(place: Place) -> dict[str, Any] | None:
    """The counts as the owner left them; None when there are requests that nobody has carried out yet."""
    if Inbox(place).names():
        return None
    found: dict[str, Any] | None = read_json(place / "counts.json")
    return found
