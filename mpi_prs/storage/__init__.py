"""Remote stores: how to get at them, listing, reading, downloading, uploading.

::

    credentials.py   URLs and how to get at them, as values
    remote.py        listing, and files read in ranges
    downloading.py   whole files, many at once
    upload.py        the finished output
    opening.py       the stores of this process: azure_….py, or fsspec_store.py for all others
    stores.py        what every store can do, and the thread that does it
"""
