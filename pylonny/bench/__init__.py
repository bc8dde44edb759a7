"""`python -m pylonny bench`: how fast the queue is on a server of yours, beside a bare table on the same one.

It works in schemas of its own, which it makes and drops. `workloads.py` says what is done, `systems.py` what
does it, `drivers.py` sends the statements, `run.py` keeps the order, `report.py` shows the result.
"""

from __future__ import annotations
