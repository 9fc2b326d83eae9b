"""Drop boxes: programs that know nothing of HPC leave a file in a directory, and wait for another one.

A job's file is at each moment one of `NAME.job`, `NAME.job.submitted` and `NAME.job.finished`; each is written aside and renamed. One
runner at a time sees to a directory (`hpcnb.dropbox.box`); it fills workspaces at the site, which anybody may carry out, and
collects what has become of them (`hpcnb.dropbox.runner`).
"""

from __future__ import annotations

from hpcnb.dropbox.waiting import submit_and_wait

__all__ = ["submit_and_wait"]
