"""`python -m pylonny.demo`: a real job through the queue, on a private PostgreSQL, from nothing.

It hashes every file of the running Python installation. Each top-level package is a tenant with a channel
of its own; producers put the files in, worker processes hash them, one worker is killed on the way, and at
the end everything is verified. `producer.py` and `worker.py` are what a user of the queue would write; the
rest sets the scene, shows it, and checks.
"""

from __future__ import annotations
