"""`python -m simnet`: what swarms come to under simulated time, network and disks."""

from simnet.command import main

if __name__ == "__main__":
    main()
