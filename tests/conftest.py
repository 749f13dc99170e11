"""What `make test` leaves out: tests/kind needs a Docker engine and runs by `make test-kind`, where it is named."""

collect_ignore = ["kind"]
