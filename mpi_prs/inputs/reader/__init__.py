"""Reader processes: other people's bytes are surveyed and decoded there, so that no file can kill a rank.

::

    rank 0    survey.py ──datasets──► serving.py: survey, split ──mini-batches──► the manifest
    worker    tables.py ──number────► serving.py: read, decode  ──shared memory─► a user process

    process.py      one reader process, from start to end
    connection.py   what passes between it and the rank
"""
