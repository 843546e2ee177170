"""botocore, as an agent's client and as the judge of what arrives.

The client signs with the pair that came with its nonce. The upstream has botocore sign the same request with the real
key, and wants the same signature.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import botocore.auth
import botocore.session
import trustme
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from rows import Tally
from sidecar import Sidecar

REGION = "eu-west-1"
HOSTS = [f"{name}.{REGION}.amazonaws.com" for name in ("s3", "sts", "sqs", "lambda")]
REAL = Credentials("AKIDREALKEY234567", "a-real-secret/of+some-length-0123456789", "a-real-session-token-0123456789==")
KEYS = {"Version": 1, "AccessKeyId": REAL.access_key, "SecretAccessKey": REAL.secret_key, "SessionToken": REAL.token}

POLICY = """
version = 1
[credentials.keys]
source = "env"
name = "KEYS"
hosts = ["*.eu-west-1.amazonaws.com"]
[services.aws]
hosts = ["s3.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com", "sqs.eu-west-1.amazonaws.com",
         "lambda.eu-west-1.amazonaws.com"]
credential = "keys"
slots = ["aws-sigv4"]
private = true
upstream_ca = "{dir}/upstream.pem"
[[services.aws.scopes]]
name = "use"
risk = "low"
allow = ["GET /{*path}", "PUT /{*path}", "POST /", "POST /{*path}"]
deny = ["GET /bucket/denied"]
[agents.worker]
identity = ["any"]
grants = { aws = ["use"] }
"""


class Upstream(BaseHTTPRequestHandler):
    """Answers what has the right signature, and notes each verdict."""

    protocol_version = "HTTP/1.1"
    verdicts: list[tuple[str, bool]] = []

    def _answer(self) -> None:
        body = self._body()
        good = self._is_signed(body)
        Upstream.verdicts.append((f"{self.command} {self.headers['Host']}{self.path}", good))
        # What is echoed holds the real token and the real id.
        text = b"<Echo>" + self.path.encode() + self.headers.as_string().encode() + b"</Echo>"
        text = text if self.headers["Host"].startswith("s3") else b"{}"
        self.send_response(200 if good else 403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = _answer

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _is_presigned(self) -> bool:
        """A URL that was presigned, for S3: nothing is said of the body."""
        unsigned, signature = self.path.split("&X-Amz-Signature=")
        said = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        _, _, region, service, _ = said["X-Amz-Credential"].split("/")
        judge = botocore.auth.S3SigV4Auth(REAL, service, region)
        headers = {name: self.headers[name] for name in said["X-Amz-SignedHeaders"].split(";")}
        request = AWSRequest(self.command, f"https://{self.headers['Host']}{unsigned}", headers=headers)
        request.context["timestamp"] = said["X-Amz-Date"]
        judge.payload = lambda _: "UNSIGNED-PAYLOAD"  # type: ignore[method-assign]
        text = judge.string_to_sign(request, judge.canonical_request(request))
        is_real = said["X-Amz-Credential"].startswith(REAL.access_key + "/") and said["X-Amz-Security-Token"] == REAL.token
        return is_real and judge.signature(text, request) == signature

    def _is_signed(self, body: bytes) -> bool:
        if "X-Amz-Signature=" in self.path:
            return self._is_presigned()
        said = self.headers["Authorization"]
        parts = dict(part.strip().split("=", 1) for part in said.split(" ", 1)[1].split(","))
        _, _, region, service, _ = parts["Credential"].split("/")
        names = parts["SignedHeaders"].split(";")
        headers = {name: self.headers[name] for name in names}
        kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
        judge = kind(REAL, service, region)
        request = AWSRequest(self.command, f"https://{self.headers['Host']}{self.path}", headers=headers, data=body)
        request.context["timestamp"] = self.headers["X-Amz-Date"]
        hashed = self.headers.get("X-Amz-Content-SHA256")
        if hashed is not None:
            judge.payload = lambda _: hashed  # type: ignore[method-assign]
        text = judge.string_to_sign(request, judge.canonical_request(request))
        is_real = parts["Credential"].startswith(REAL.access_key + "/") and self.headers["X-Amz-Security-Token"] == REAL.token
        return is_real and judge.signature(text, request) == parts["Signature"]

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


def upstream(directory: Path) -> int:
    """Starts it; its port."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "upstream.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*HOSTS).configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def client(name: str, aws: dict[str, str], sidecar: Sidecar, **config: Any) -> Any:
    """botocore's client of a service, with the pair of a nonce."""
    session = botocore.session.get_session()
    session.set_credentials(aws["access_key_id"], aws["secret_access_key"], aws["session_token"])
    settings = Config(proxies={"https": sidecar.proxy}, retries={"max_attempts": 0}, **config)
    bundle = str(sidecar.directory / "public" / "ca.pem")
    return session.create_client(name, region_name=REGION, config=settings, verify=bundle)


def fetched(method: str, url: str, sidecar: Sidecar, body: bytes | None = None) -> tuple[int, bytes]:
    """A URL through the proxy, by a client that knows nothing of signatures."""
    proxy, parts = urlsplit(sidecar.proxy), urlsplit(url)
    context = ssl.create_default_context(cafile=str(sidecar.directory / "public" / "ca.pem"))
    connection = http.client.HTTPSConnection(str(proxy.hostname), proxy.port, context=context, timeout=20)
    connection.set_tunnel(str(parts.hostname), 443)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def presigned(aws: dict[str, str], sidecar: Sidecar) -> list[str]:
    """URLs that botocore has presigned, used by others; what went wrong."""
    s3 = client("s3", aws, sidecar, s3={"addressing_style": "path"}, signature_version="s3v4")
    wrong: list[str] = []
    got = {"Bucket": "bucket", "Key": "a b/\u00e4+~(1)!'*.txt", "ResponseContentType": "text/plain; a=b"}
    put = {"Bucket": "bucket", "Key": "k"}
    for what, method, url, body in (
        ("get", "GET", s3.generate_presigned_url("get_object", Params=got, ExpiresIn=600), None),
        ("put", "PUT", s3.generate_presigned_url("put_object", Params=put), b"a body"),
    ):
        status, text = fetched(method, url, sidecar, body)
        if status != 200:
            wrong.append(f"{what}: {status} {text[:300]!r}")
        wrong += [f"{what}: {secret} came back" for secret in (REAL.access_key, REAL.token) if str(secret).encode() in text]
        status, text = fetched(method, url.replace("/bucket/", "/bucket2/"), sidecar, body)
        if status != 403 or b"valetkey" not in text:
            wrong.append(f"{what} of another bucket: {status}")
    return wrong


def uses(aws: dict[str, str], sidecar: Sidecar) -> list[str]:
    """Calls each in its way; what went wrong."""
    wrong: list[str] = []
    s3 = client("s3", aws, sidecar, s3={"addressing_style": "path"})
    covered = client("s3", aws, sidecar, s3={"addressing_style": "path", "payload_signing_enabled": True})
    heard: list[Any] = [
        s3.get_object(Bucket="bucket", Key="a b/\u00e4+~(1)!'*.txt")["Body"].read(),
        s3.get_object(Bucket="bucket", Key="k", Range="bytes=0-9")["Body"].read(),
        s3.put_object(Bucket="bucket", Key="k", Body=b"a body", Metadata={"one": "two  words"}),
        s3.put_object(Bucket="bucket", Key="k", Body=(Path(__file__).parent / "rows.py").open("rb")),
        covered.put_object(Bucket="bucket", Key="k", Body=b"a body", ChecksumAlgorithm="SHA256"),
        client("lambda", aws, sidecar).invoke(FunctionName="arn:aws:lambda:eu-west-1:1:function:f:$LATEST", Payload=b"{}"),
        client("sqs", aws, sidecar).list_queues(QueueNamePrefix="a b&c=d"),
    ]
    said = repr(heard)
    wrong += [f"{secret} came back" for secret in (REAL.access_key, REAL.secret_key, REAL.token) if secret in said]
    for what, call in (
        ("a denied key", lambda: s3.get_object(Bucket="bucket", Key="denied")),
        ("a copy", lambda: s3.copy_object(Bucket="bucket", Key="k", CopySource="other/secret")),
    ):
        try:
            call()
            wrong.append(f"{what} was allowed")
        except ClientError as error:
            if "valetkey" not in str(error):
                wrong.append(f"{what}: {error}")
    return wrong


def run_signed(binary: Path, tally: Tally) -> None:
    """Everything, with one upstream."""
    with tempfile.TemporaryDirectory(prefix="valetkey-signed-") as place:
        directory = Path(place)
        (directory / "policy.in").write_text(POLICY)
        port = upstream(directory)
        sidecar = Sidecar(binary.resolve(), directory / "policy.in", directory)
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        sidecar.start({"KEYS": json.dumps(KEYS)}, dict.fromkeys(HOSTS, port))
        try:
            grants = [{"service": "aws", "scopes": ["use"]}]
            minted = sidecar._call("POST", "/v1/nonces", {"agent": "worker", "task": "t", "grants": grants})
            wrong = uses(minted["aws"], sidecar)
            from_urls = presigned(minted["aws"], sidecar)
            texts = b"".join(sidecar.written().values()).decode(errors="replace")
            secrets = (REAL.secret_key, str(REAL.token), minted["nonce"], minted["aws"]["secret_access_key"])
            written = ["a secret was written" for secret in secrets if secret in texts]
        finally:
            sidecar.stop()
    unsigned = [unquote(urlsplit(what).path) for what, good in Upstream.verdicts if not good]
    tally.settle("botocore: calls are answered, and what is denied is refused", wrong)
    tally.settle("botocore: URLs that it has presigned are answered, for what they name", from_urls)
    tally.settle("botocore: no secret is written down", written)
    tally.settle("botocore: all is signed by the real key", unsigned if Upstream.verdicts else ["nothing has arrived"])
