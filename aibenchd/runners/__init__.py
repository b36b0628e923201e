"""Stand-alone benchmark programs, one file each, that can be pushed to a device."""
