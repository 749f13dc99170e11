"""What `make test` leaves out: tests/docker and tests/kind need a Docker engine; `make test-kind` names them."""

collect_ignore = ["docker", "kind"]
