"""Remote stores: how to get at them, listing, reading, downloading, uploading.

::

    remote.py        URLs, credentials, listing, files read in ranges      what the other rooms use
    downloading.py   whole files, many at once
    upload.py        the finished output
    stores.py        what every store can do, and the thread that does it; azure_….py and fsspec_store.py do
"""
