"""Everything one machine needs to run Fairq by one command: services, processes, supervision."""
