"""One run without a daemon: what ``aibenchd bench`` and ``aibenchd ab`` do. The rooms are the daemon's own, in this process."""
