"""The same core and protocol under simulated time, network and disks; and a testbed of real daemons."""
