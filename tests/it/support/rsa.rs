//! An RSA key that signs tokens, made by `openssl` for the test: ring makes none, and none is in the repository.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::skip;

/// A key of 2048 bits.
pub struct RsaSigner(RsaKeyPair);

impl RsaSigner {
    /// None where there is no `openssl`.
    pub fn make() -> Option<Self> {
        let mut command = Command::new("openssl");
        command.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        let made = match command.output() {
            Ok(output) => output,
            Err(error) => {
                skip(format!("openssl cannot be run: {error}"));
                return None;
            }
        };
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        // As PEM: its DER is of an older form, which ring does not read.
        let key = PrivatePkcs8KeyDer::from_pem_slice(&made.stdout).expect("PEM");
        Some(Self(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("PKCS#8")))
    }

    /// Its public half as a JWK.
    pub fn jwk(&self, kid: &str, more: &[(&str, &str)]) -> Value {
        let public: PublicKeyComponents<Vec<u8>> = self.0.public().into();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = json!({"kty": "RSA", "kid": kid, "n": encode(&public.n), "e": encode(&public.e)});
        for (name, value) in more {
            jwk[*name] = (*value).into();
        }
        jwk
    }

    /// A token of these claims that is signed as it says.
    pub fn token(&self, algorithm: &str, kid: &str, claims: &Value) -> String {
        self.signed(algorithm, algorithm, kid, claims)
    }

    /// One that says `said` and is signed by another algorithm.
    pub fn signed(&self, algorithm: &str, said: &str, kid: &str, claims: &Value) -> String {
        let encoding: &dyn RsaEncoding = match algorithm {
            "RS256" => &RSA_PKCS1_SHA256,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS256" => &RSA_PSS_SHA256,
            other => panic!("{other} is not signed here"),
        };
        let head = json!({"alg": said, "kid": kid, "typ": "JWT"}).to_string();
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0.sign(encoding, &SystemRandom::new(), text.as_bytes(), &mut signature).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
