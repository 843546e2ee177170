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

    /// A URL that is good for so many seconds. The query has to be encoded as AWS has it.
    pub fn presign(&self, method: &str, host: &str, target: &str, expires: u32) -> String {
        let encoded = |text: &str| percent_encoding::utf8_percent_encode(text, UNRESERVED).to_string();
        let credential = encoded(&format!("{}/{}", self.id, self.scope()));
        let (separator, date) = (if target.contains('?') { '&' } else { '?' }, &self.date);
        let token =
            self.token.as_ref().map_or_else(String::new, |token| format!("&X-Amz-Security-Token={}", encoded(token)));
        let unsigned = format!(
            "{target}{separator}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}\
             &X-Amz-Expires={expires}{token}&X-Amz-SignedHeaders=host"
        );
        let signature = self.of_query(method, host, &unsigned);
        format!("{unsigned}&X-Amz-Signature={signature}")
    }

    /// The signature of a URL, in which there is none yet.
    pub fn of_query(&self, method: &str, host: &str, unsigned: &str) -> String {
        let (path, query) = unsigned.split_once('?').expect("a query");
        let mut pairs: Vec<String> = query
            .split('&')
            .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
            .collect();
        pairs.sort_unstable();
        let query = pairs.join("&");
        let canonical = sha_256(&format!("{method}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"));
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

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
