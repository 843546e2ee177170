//! AWS Signature Version 4 as a client and a server have it, written apart from the product.

use ring::{digest, hmac};

/// What stays as it is in a canonical query.
const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client's key and what it signs for.
#[derive(Debug, Clone)]
pub struct Signer {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
    pub region: String,
    pub service: String,
    /// `20150830T123600Z`
    pub date: String,
}

/// Fields of a request, in any order.
pub type Fields = Vec<(String, String)>;

pub fn sha_256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// A moment as signatures have it.
pub fn moment(seconds_from_now: i64) -> String {
    let moment = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds_from_now);
    moment.strftime("%Y%m%dT%H%M%SZ").to_string()
}

impl Signer {
    /// With the pair of a mint's answer.
    pub fn of(minted: &serde_json::Value) -> Self {
        let text = |name: &str| minted["aws"][name].as_str().expect("a text").to_owned();
        Self {
            id: text("access_key_id"),
            secret: text("secret_access_key"),
            token: Some(text("session_token")),
            region: "eu-west-1".to_owned(),
            service: "s3".to_owned(),
            date: moment(0),
        }
    }

    /// All fields of a signed request: those given, and what a client adds to them. Path and query have to be in their
    /// canonical form.
    pub fn sign(&self, method: &str, host: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Fields {
        let mut fields: Fields = fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        fields.push(("x-amz-date".to_owned(), self.date.clone()));
        fields.extend(self.token.iter().map(|token| ("x-amz-security-token".to_owned(), token.clone())));
        let names: Vec<&str> = fields.iter().map(|(name, _)| &**name).chain(["host"]).collect();
        let value = self.authorization(method, host, target, (&names, &fields), body);
        fields.push(("authorization".to_owned(), value));
        fields
    }

    /// The value of `Authorization` over these fields.
    pub fn authorization(
        &self,
        method: &str,
        host: &str,
        target: &str,
        signed: (&[&str], &Fields),
        body: &str,
    ) -> String {
        self.authorization_of(&self.date[..8], (method, host, target), signed, body)
    }

    /// The same, in the scope of any day.
    pub fn authorization_of(
        &self,
        day: &str,
        (method, host, target): (&str, &str, &str),
        (names, fields): (&[&str], &Fields),
        body: &str,
    ) -> String {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        let value = |name: &str| match name {
            "host" => host.to_owned(),
            _ => fields
                .iter()
                .filter(|(known, _)| known == name)
                .map(|(_, value)| &**value)
                .collect::<Vec<_>>()
                .join(","),
        };
        let lines: String = names.iter().map(|name| format!("{name}:{}\n", value(name).trim())).collect();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let content = fields.iter().find(|(name, _)| name == "x-amz-content-sha256");
        let payload = content.map_or_else(|| sha_256(body), |(_, value)| value.clone());
        let names = names.join(";");
        let canonical = sha_256(&format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}"));
        let scope = self.scope_of(day);
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{canonical}", self.date);
        let signature = self.signature_in(&scope, &text);
        format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.id)
    }

    /// `20150830/us-east-1/iam/aws4_request`
    pub fn scope(&self) -> String {
        self.scope_of(&self.date[..8])
    }

    fn scope_of(&self, day: &str) -> String {
        format!("{day}/{}/{}/aws4_request", self.region, self.service)
    }

    /// The signature of a text, in hex.
    pub fn signature(&self, text: &str) -> String {
        self.signature_in(&self.scope(), text)
    }

    fn signature_in(&self, scope: &str, text: &str) -> String {
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in scope.split('/') {
            key = keyed(&key, part);
        }
        hex::encode(keyed(&key, text))
    }

    /// A URL that is good for so many seconds.
    pub fn presign(&self, method: &str, host: &str, target: &str, expires: u32) -> String {
        self.presign_with((method, host, target), &self.parameters(&expires.to_string()), &[])
    }

    /// What a URL of this signer says beside its signature: names, and values in their encoding.
    pub fn parameters(&self, expires: &str) -> Vec<(String, String)> {
        let credential = format!("{}/{}", self.id, self.scope());
        let mut all = vec![
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
            ("X-Amz-Credential", encoded(&credential)),
            ("X-Amz-Date", encoded(&self.date)),
            ("X-Amz-Expires", expires.to_owned()),
        ];
        all.extend(self.token.iter().map(|token| ("X-Amz-Security-Token", encoded(token))));
        all.push(("X-Amz-SignedHeaders", "host".to_owned()));
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A URL with these parameters, signed right whatever they say.
    pub fn presign_with(
        &self,
        (method, host, target): (&str, &str, &str),
        parameters: &[(String, String)],
        fields: &[(&str, &str)],
    ) -> String {
        let names = parameters.iter().find(|(name, _)| name == "X-Amz-SignedHeaders");
        let names = names.map_or_else(|| "host".to_owned(), |(_, value)| decoded(value));
        let said: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let separator = if target.contains('?') { '&' } else { '?' };
        let unsigned = format!("{target}{separator}{}", said.join("&"));
        let signature = self.of_query((method, host, &unsigned), &names, fields);
        format!("{unsigned}&X-Amz-Signature={signature}")
    }

    /// The signature of a URL as S3 makes it, in which there is none yet, and of these fields.
    pub fn of_query(
        &self,
        (method, host, unsigned): (&str, &str, &str),
        names: &str,
        fields: &[(&str, &str)],
    ) -> String {
        let (path, query) = unsigned.split_once('?').expect("a query");
        let path: Vec<String> = path.split('/').map(|segment| encoded(&decoded(segment))).collect();
        let value = |wanted: &str| match wanted {
            "host" => host,
            _ => fields.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| value),
        };
        let lines: String = names.split(';').map(|name| format!("{name}:{}\n", value(name))).collect();
        let payload = fields.iter().find(|(name, _)| *name == "x-amz-content-sha256");
        let payload = payload.map_or("UNSIGNED-PAYLOAD", |(_, value)| value);
        let (path, query) = (path.join("/"), canonical_query(query));
        let canonical = sha_256(&format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}"));
        self.signature(&format!("AWS4-HMAC-SHA256\n{}\n{}\n{canonical}", self.date, self.scope()))
    }

    /// A body in chunks, each signed after the one before it, the first one after the head.
    pub fn chunked(&self, seed: &str, pieces: &[&str], trailer: Option<(&str, &str)>) -> String {
        let (mut body, mut last) = (String::new(), seed.to_owned());
        let (date, scope, empty) = (&self.date, self.scope(), sha_256(""));
        for data in pieces.iter().copied().chain([""]) {
            let hash = sha_256(data);
            last = self.signature(&format!("AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{last}\n{empty}\n{hash}"));
            body += &format!("{:x};chunk-signature={last}\r\n{data}", data.len());
            body += if data.is_empty() && trailer.is_some() { "" } else { "\r\n" };
        }
        if let Some((name, value)) = trailer {
            let hash = sha_256(&format!("{name}:{value}\n"));
            last = self.signature(&format!("AWS4-HMAC-SHA256-TRAILER\n{date}\n{scope}\n{last}\n{hash}"));
            body += &format!("{name}:{value}\r\nx-amz-trailer-signature:{last}\r\n\r\n");
        }
        body
    }
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, UNRESERVED).to_string()
}

/// What was encoded, once.
pub fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Names and values encoded once, whatever of them was, in the order of their bytes.
fn canonical_query(query: &str) -> String {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let mut pairs: Vec<(String, String)> = pieces
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .map(|(name, value)| (encoded(&decoded(name)), encoded(&decoded(value))))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
