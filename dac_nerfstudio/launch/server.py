"""Imported first by the server from which jobs are forked, for what it does to that process and to no other.

A signal to all processes of `dac run` is for the one that the user started: it asks its jobs to stop, and needs the
server to learn how they ended.
"""

from __future__ import annotations

import os
import signal

from dac_nerfstudio.signals import SIGNALS

# Out of reach of a terminal and of signals to the group of the process that started it; jobs are in this group, too.
os.setsid()
# Some send signals to every single process, as systemd does. Blocked rather than ignored: jobs inherit that, and what
# reaches one too early waits until it can take it.
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
