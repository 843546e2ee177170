//! An orchestrator elsewhere: the control API over TLS, with tokens and certificates made for the test.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use super::authority::TestAuthority;
use super::{Builder, TestSidecar};

/// The name in the control listener's certificate.
pub const NAME: &str = "control.test";

/// A CA for the control listener and one for its callers.
pub struct Parties {
    pub server: Arc<TestAuthority>,
    pub callers: Arc<TestAuthority>,
}

/// A file that only its owner may touch, or with another mode.
pub fn write(path: &Path, content: &str, mode: u32) {
    std::fs::write(path, content).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

/// DER as PEM.
pub fn pem(kind: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}

impl Parties {
    pub fn new() -> Self {
        Self { server: TestAuthority::new(), callers: TestAuthority::new() }
    }

    /// Certificate and key of the listener, and the callers' CA, in a directory of their own, as in a deployment.
    pub fn lay(&self, directory: &Path) {
        let directory = directory.join("tls");
        std::fs::create_dir_all(&directory).expect("a directory");
        let (chain, key) = self.server.leaf(&[NAME], |_| {});
        write(&directory.join("control.pem"), &pem("CERTIFICATE", &chain[0]), 0o644);
        write(&directory.join("control.key"), &pem("PRIVATE KEY", key.secret_der()), 0o600);
        write(&directory.join("callers.pem"), &self.callers.pem, 0o644);
    }

    /// Flags that open the listener.
    pub fn open(builder: Builder) -> Builder {
        [
            "--control-tcp",
            "127.0.0.1:0",
            "--control-tls-cert",
            "{dir}/tls/control.pem",
            "--control-tls-key",
            "{dir}/tls/control.key",
            "--control-client-ca",
            "{dir}/tls/callers.pem",
        ]
        .into_iter()
        .fold(builder, Builder::flag)
    }

    /// A caller without a certificate.
    pub fn caller(&self, sidecar: &TestSidecar) -> Caller {
        self.caller_with(sidecar, None)
    }

    /// A caller with a certificate.
    pub fn caller_with(
        &self,
        sidecar: &TestSidecar,
        certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Caller {
        let ready: Value = serde_json::from_str(&sidecar.text("ready.json")).expect("JSON");
        let address = ready["control_tcp"].as_str().expect("an address").parse().expect("an address");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.server.pem.as_bytes()).expect("PEM")).expect("a root");
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match certificate {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a certificate"),
            None => builder.with_no_client_auth(),
        };
        Caller { address, from: None, config: Arc::new(config) }
    }
}

/// Whoever calls over TLS.
#[derive(Clone)]
pub struct Caller {
    pub address: SocketAddr,
    /// Its own address, where the kernel shall not choose.
    pub from: Option<IpAddr>,
    config: Arc<rustls::ClientConfig>,
}

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
}

impl Caller {
    /// One request as it is; `Err` where the connection did not come to an answer.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let stream = self.connect().await.map_err(|error| error.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(self.config.clone());
        let name = ServerName::try_from(NAME).expect("a name");
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        connection.abort();
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Answer { status: head.status, headers: head.headers, json })
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let Some(from) = self.from else { return TcpStream::connect(self.address).await };
        let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind((from, 0).into())?;
        socket.connect(self.address).await
    }

    /// `GET`, with this `Authorization` if there is one.
    pub async fn get(&self, path: &str, authorization: Option<&str>) -> Answer {
        let mut request = Request::get(path).header("host", NAME);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        self.send(request.body(Full::default()).expect("a request")).await.expect("an answer")
    }

    /// Who this token says that we are: the identity, or the status and the sentence of the refusal.
    pub async fn whoami(&self, token: &str) -> Result<String, (u16, String)> {
        let answer = self.get("/v1/whoami", Some(&format!("Bearer {token}"))).await;
        match answer.json["identity"].as_str() {
            Some(identity) if answer.status == 200 => Ok(identity.to_owned()),
            _ => Err((answer.status.as_u16(), answer.json["detail"].as_str().unwrap_or_default().to_owned())),
        }
    }

    /// Mints with this token.
    pub async fn mint(&self, token: &str) -> Answer {
        let body = json!({"agent": "worker", "task": "t", "service": "api", "scope": "read"}).to_string();
        let request = Request::post("/v1/nonces")
            .header("host", NAME)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::from(body));
        self.send(request.expect("a request")).await.expect("an answer")
    }
}

/// A key that signs tokens.
pub enum Signer {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

impl Signer {
    pub fn es256() -> Self {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &SystemRandom::new());
        Self::Es256(key.expect("a key"))
    }

    pub fn eddsa() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self::EdDsa(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key"))
    }

    /// Its public half as a JWK.
    pub fn jwk(&self, kid: &str, more: &[(&str, &str)]) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Es256(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
            Self::EdDsa(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref())}),
        };
        jwk["kid"] = kid.into();
        for (name, value) in more {
            jwk[*name] = (*value).into();
        }
        jwk
    }

    /// Signs these two parts as they are.
    pub fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = match self {
            Self::Es256(key) => {
                key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature").as_ref().to_vec()
            }
            Self::EdDsa(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token of this key with these claims.
    pub fn token(&self, kid: &str, claims: &Value) -> String {
        let algorithm = match self {
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        };
        self.sign(&json!({"alg": algorithm, "kid": kid, "typ": "JWT"}).to_string(), &claims.to_string())
    }
}

/// A key set of these keys.
pub fn jwks(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// Seconds from now, as claims have them.
pub fn seconds_from_now(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_second() + seconds
}
