"""The doctor: looks at how the program would run here, and says what to change.

::

    look (this process) ──► findings ──► report (pure): what was found, what to change
            ▲                  ▲
            └─ exchange: rank 0 asks all ranks
"""
