"""Mistakes that stay until somebody mends them are told as such, with what to do; only the others may pass."""

import datetime
import http.server
import ipaddress
import json
import socket
import ssl
import threading

import pytest

from tests.support import EXPERIMENTS
from watkins_ml.core.errors import UserError
from watkins_ml.tracking.faults import Fault, diagnose, who_answers
from watkins_ml.tracking.server import client, tracking_uri
from watkins_ml.tracking.sync import sync_all, sync_run
from watkins_ml.tracking.upload import Upload
from watkins_ml.tracking.uploader import Uploader


class Stranger:
    """A server that is no MLflow: `status` and `body` to every request, except where `pages` has a path's body."""

    def __init__(self, context: ssl.SSLContext | None = None):
        self.status, self.body, self.pages = 404, b"<html>Not Found</html>", {}
        stranger = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                page = stranger.pages.get(self.path)
                self.send_response(stranger.status if page is None else 200)
                body = stranger.body if page is None else page
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        self.address = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def stranger(impatient, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    running = Stranger()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.address)
    yield running
    running.server.shutdown()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody but itself has signed, with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now.replace(year=2090))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file = tmp_path_factory.mktemp("certificate") / "server.pem"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + secret)
    return file


@pytest.fixture
def encrypted(certificate, stranger, monkeypatch):
    """The same server behind https."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    running = Stranger(context)
    yield running
    running.server.shutdown()


def fault() -> Fault:
    """Of a request to the server of the environment."""
    with pytest.raises(Exception) as caught:  # whatever MLflow raises
        client().get_experiment_by_name("sea")
    return diagnose(caught.value, tracking_uri())


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>"), (404, b'{"detail": "Not Found"}'), (405, b""), (501, b""), (200, b"<html>"), (302, b"")],
)
def test_another_program_at_the_port(stranger, status, body):
    stranger.status, stranger.body = status, body
    assert fault() == Fault("what answers there is no MLflow server", "correct the host or the port")


@pytest.mark.parametrize("body", [b'{"status": "ok"}', b""])
def test_another_program_that_says_yes_to_everything_has_received_nothing(stranger, journal, body, watkins):
    stranger.status, stranger.body = 200, body
    run = journal()
    with pytest.raises(UserError, match="what answers there is no MLflow server; correct the host or the port"):
        list(sync_run(run))
    assert Upload(run).missing == len(run.entries())
    said = watkins("models")
    assert said.status == 1 and "what answers there is no MLflow server" in said.err


def test_a_path_too_many(stranger, monkeypatch):
    stranger.pages = {"/version": b"3.4.0"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{stranger.address}/ui")
    assert fault() == Fault("what answers there is no MLflow server", "leave out /ui")


def test_a_server_that_is_too_old(stranger):
    stranger.pages = {"/version": b"2.9.2"}
    told = fault()
    assert "it is an MLflow 2.9.2" in told.words and "3 or newer" in told.remedy and not told.transient


@pytest.mark.parametrize(
    ("status", "body", "words", "remedy"),
    [
        (401, b"You are not authenticated.", "requires an account", "MLFLOW_TRACKING_USERNAME"),
        (401, b'{"error": "login"}', "requires an account", "MLFLOW_TRACKING_USERNAME"),
        (403, b"<html>", "may not do that (403)", "ask the server's administrator"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "may not do that", "administrator"),
        (403, b"Invalid Host header - possible DNS rebinding", "Invalid Host header", "MLFLOW_SERVER_ALLOWED_HOSTS="),
        (407, b"", "a proxy requires an account", "variable"),
        (413, b"<html>", "too large", "limit"),
    ],
)
def test_what_a_server_forbids(stranger, status, body, words, remedy):
    stranger.status, stranger.body = status, body
    told = fault()
    assert words in told.words and remedy in told.remedy and not told.transient


@pytest.mark.parametrize("status", [500, 503])
def test_what_may_pass_is_said_to_pass(stranger, status):
    stranger.status = status
    assert fault() == Fault(f"it answers {status}", transient=True)


def test_a_host_that_is_not_there_is_not_said_to_come_back(stranger, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://no-such-host.invalid:5000")
    told = fault()
    assert told.words == "no host of that name" and "check the address" in told.remedy and not told.transient


def test_https_where_nobody_speaks_it_and_http_where_nobody_does(stranger, encrypted, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stranger.address.replace("http", "https"))
    assert fault() == Fault("it does not speak https", "write the address with http://")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", encrypted.address)
    told = fault()
    assert told.words == "it drops connections" and "write the address with https://" in told.remedy


def test_a_certificate_that_nobody_knows_is_for_another_host_or_is_named_wrongly(encrypted, certificate, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", encrypted.address.replace("http", "https"))
    told = fault()
    assert "does not trust" in told.words and "MLFLOW_TRACKING_SERVER_CERT_PATH" in told.remedy
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "nothing.pem")
    told = fault()
    assert "nothing.pem" in told.words and "MLFLOW_TRACKING_SERVER_CERT_PATH" in told.remedy
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://localhost:{encrypted.port}")
    assert "for another host" in fault().words


def test_a_proxy_in_the_way_is_named_and_how_to_go_around_it(stranger, monkeypatch, nobody_listens, watkins):
    monkeypatch.setenv("http_proxy", nobody_listens.replace("//", "//user:SECRET@"))
    said = watkins("models")
    proxy = nobody_listens.removeprefix("http://")
    assert said.status == 1 and f"the proxy {proxy} of http_proxy does not let it through" in said.err
    assert "export NO_PROXY=127.0.0.1" in said.err and "SECRET" not in said.err
    assert "watkins models" not in said.err  # which is what was just tried


def test_an_answer_that_may_be_the_proxys_own_names_it(stranger, monkeypatch):
    monkeypatch.setenv("http_proxy", stranger.address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid:5000")
    stranger.status = 503
    told = fault()
    assert f"it answers 503, asked through the proxy 127.0.0.1:{stranger.port} of http_proxy" == told.words
    assert "NO_PROXY=mlflow.invalid" in told.remedy and told.transient


@pytest.fixture
def deleted(server, journal, monkeypatch, request):
    """A run whose experiment somebody deleted in the UI before it could be sent."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run = journal(experiment=request.node.name)
    tracked = client()
    number = tracked.create_experiment(request.node.name)
    tracked.delete_experiment(number)
    return run, tracked, number


def test_an_experiment_that_was_deleted_can_be_restored_as_is_said(deleted):
    run, tracked, number = deleted
    with pytest.raises(UserError) as caught:
        list(sync_run(run))
    command = f"`mlflow experiments restore --experiment-id {number}`"
    assert "the experiment was deleted there" in str(caught.value) and command in str(caught.value)
    assert "later" not in str(caught.value)
    tracked.restore_experiment(number)
    assert f"{len(run.entries())} of" in "".join(sync_run(run))


def test_the_training_goes_on_and_promises_nothing(deleted, capsys):
    run, *_ = deleted
    with Uploader(run):
        pass
    said = capsys.readouterr().err
    assert said.count("Tracking server") == 1 and "failed (the experiment was deleted there; restore it" in said
    assert "as soon as" not in said and "waiting does not help" in said
    assert f"watkins sync {run.root}" in said


def test_catching_up_says_the_same_once_for_a_whole_folder(deleted, capsys):
    run, *_ = deleted
    sync_all(run.root.parent)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.rstrip().endswith(f"then try again with `watkins sync {run.root.parent}`")


def test_a_run_that_was_deleted_alone_or_with_its_experiment(server, journal, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run = journal(experiment="deleted-afterwards")
    Upload(run).send()
    tracked, run_id = client(), run.facts.mlflow_run_id
    tracked.delete_run(run_id)
    with pytest.raises(UserError, match=rf"the run was deleted there; .*`mlflow runs restore --run-id {run_id}`"):
        list(sync_run(run))
    number = tracked.get_run(run_id).info.experiment_id
    tracked.delete_experiment(number)
    with pytest.raises(UserError, match=rf"mlflow experiments restore --experiment-id {number}"):
        list(sync_run(run))


def test_a_run_that_is_deleted_while_it_is_sent(server, journal, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run = journal(experiment="deleted-meanwhile")
    upload = Upload(run)
    upload.send()
    client().delete_run(run.facts.mlflow_run_id)
    run.record("tags", values={"more": "1"})
    with pytest.raises(Exception) as caught:
        upload.send()
    told = diagnose(caught.value, server)
    assert told.words == "the run was deleted there" and "mlflow runs restore" in told.remedy


def test_the_commands_are_refused_at_an_address_that_can_never_work(watkins, monkeypatch, tmp_path, recipe_files):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    for command in recipe_files:
        said = watkins(*command)
        assert said.status == 2 and said.err.count("\n") == 1, said.err
        assert "MLFLOW_TRACKING_URI=localhost:5000: has no scheme; write http://localhost:5000" in said.err
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def recipe_files(prepared, tmp_path):
    """Every command that needs the server."""

    baseline = EXPERIMENTS / "baseline.yaml"
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps({
        "base": str(baseline), "data": {"dir": str(prepared)},
        "study": {"trials": 1, "search": {"optim.lr": {"low": 0.001, "high": 0.01}}},
    }))  # fmt: skip
    data = ("-o", f"data.dir={prepared}")
    return [("train", baseline, *data), ("tune", study), ("crossval", baseline, *data), ("sync",), ("models",),
            ("promote", "a/1"), ("evaluate", "models:/a@champion", "--data", prepared), ("compare",)]  # fmt: skip


def test_a_wrong_account_or_database_of_postgresql_stays_wrong():
    text = 'connection failed: connection to server at "h", port 5432 failed: FATAL:  database "x" does not exist'
    told = diagnose(RuntimeError(text), "postgresql://h/x")
    assert told == Fault('database "x" does not exist', "correct the address")


def test_who_answers_where_nobody_does(nobody_listens, impatient):
    assert who_answers(nobody_listens) is None and who_answers("sqlite:///x.db") is None


def test_a_server_that_hangs_up_without_https_may_come_back(impatient, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            while True:
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert fault().words == "it drops connections" and fault().transient


def test_in_the_embedded_store_the_command_that_restores_names_it(store, journal):
    number = store.create_experiment("sea")
    store.delete_experiment(number)
    with pytest.raises(UserError) as caught:
        list(sync_run(journal(experiment="sea")))
    command = f"MLFLOW_TRACKING_URI={tracking_uri()} mlflow experiments restore --experiment-id {number}"
    assert f"restore it with `{command}`" in str(caught.value)
