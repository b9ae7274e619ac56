"""Remote stores: how to get at them, listing, reading, downloading, uploading.

::

    credentials.py   URLs and how to get at them, as values
    remote.py        the stores of this process: listing, and files read in ranges
    downloading.py   whole files, many at once
    upload.py        the finished output
    azure.py         Azure's blob storage; accounts.py: which account a URL means. fsspec_store.py: all others
    stores.py        what every store can do, and the thread that does it
"""
