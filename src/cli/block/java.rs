//! What the JVM is told, in `JAVA_TOOL_OPTIONS`: it reads no proxy variable and no PEM file.
//!
//! Sources: "Networking Properties" and "Java Secure Socket Extension Reference Guide" of the JDK. The JVM splits the
//! variable at white space and takes quotes away as a shell does, without escapes.

use std::net::Ipv4Addr;

use crate::authority::TRUSTSTORE_PASSWORD;
use crate::model::Destination;

/// What is always reached directly, as Java spells it.
const DIRECT: &[&str] = &["localhost", "127.*", "[::1]"];

/// The options, with blanks between them.
pub(super) fn options(proxy: &Destination, truststore: &str, no_proxy: &[String]) -> String {
    let host = proxy.host.as_str();
    let mut options = Vec::new();
    for scheme in ["https", "http"] {
        options.push(format!("-D{scheme}.proxyHost={host}"));
        options.push(format!("-D{scheme}.proxyPort={}", proxy.port));
    }
    let direct: Vec<String> =
        DIRECT.iter().map(|host| (*host).to_owned()).chain(no_proxy.iter().flat_map(|entry| patterns(entry))).collect();
    options.push(format!("-Dhttp.nonProxyHosts={}", direct.join("|")));
    options.push(format!("-Djavax.net.ssl.trustStore={truststore}"));
    options.push("-Djavax.net.ssl.trustStoreType=PKCS12".to_owned());
    options.push(format!("-Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD}"));
    options.iter().map(|option| quoted(option)).collect::<Vec<_>>().join(" ")
}

/// An entry of `NO_PROXY` as patterns of `http.nonProxyHosts`, which knows names with one `*` and no ranges: of these
/// only those that end between two bytes of IPv4 can be said. What cannot be said goes through the sidecar.
fn patterns(entry: &str) -> Vec<String> {
    if let Some((network, bits)) = entry.split_once('/') {
        return range(network, bits).into_iter().collect();
    }
    let name = entry.trim_start_matches('*');
    if name.is_empty() {
        return vec!["*".to_owned()];
    }
    if name.starts_with('[') && name.ends_with(']') {
        return vec![name.to_owned()];
    }
    match name.matches(':').count() {
        0 => {}
        // A port: Java cannot tell ports apart.
        1 => return Vec::new(),
        _ => return vec![format!("[{name}]")],
    }
    match name.strip_prefix('.') {
        Some(suffix) => vec![format!("*.{suffix}")],
        None if name.parse::<Ipv4Addr>().is_ok() => vec![name.to_owned()],
        None => vec![name.to_owned(), format!("*.{name}")],
    }
}

fn range(network: &str, bits: &str) -> Option<String> {
    let octets = network.parse::<Ipv4Addr>().ok()?.octets();
    let whole = match bits {
        "8" => 1,
        "16" => 2,
        "24" => 3,
        "32" => return Some(network.to_owned()),
        _ => return None,
    };
    let parts: Vec<String> = octets[..whole].iter().map(u8::to_string).collect();
    Some(format!("{}.*", parts.join(".")))
}

/// An option as one word: with quotes only where white space or a quote is in it.
fn quoted(option: &str) -> String {
    if !option.contains(|c: char| c.is_ascii_whitespace() || matches!(c, '\'' | '"')) {
        return option.to_owned();
    }
    // Within single quotes only the single quote ends them; it stands in double quotes of its own.
    format!("'{}'", option.replace('\'', "'\"'\"'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_spelled_as_java_matches_them() {
        for (entry, expected) in [
            (".svc", &["*.svc"][..]),
            ("*.svc", &["*.svc"]),
            ("*", &["*"]),
            ("db.internal", &["db.internal", "*.db.internal"]),
            ("10.0.0.0/8", &["10.*"]),
            ("10.20.0.0/16", &["10.20.*"]),
            ("192.168.7.0/24", &["192.168.7.*"]),
            ("10.1.2.3", &["10.1.2.3"]),
            ("10.1.2.3/32", &["10.1.2.3"]),
            ("10.0.0.0/12", &[]),
            ("fd00::/8", &[]),
            ("fd00::1", &["[fd00::1]"]),
            ("db.internal:5432", &[]),
        ] {
            assert_eq!(patterns(entry), expected, "{entry}");
        }
    }

    /// What the JVM itself makes of the variable.
    #[test]
    fn java_reads_back_a_path_with_blanks_and_quotes() {
        let path = "/srv/it's \"our\" CA/truststore.p12";
        let proxy = Destination::parse("127.0.0.1:8080", None).unwrap();
        let mut java = std::process::Command::new("java");
        java.args(["-XshowSettings:properties", "-version"]);
        java.env("JAVA_TOOL_OPTIONS", options(&proxy, path, &[".svc".to_owned()]));
        let Ok(output) = java.output() else {
            return crate::skips::skip("no java on this machine");
        };
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        for line in [
            &format!("javax.net.ssl.trustStore = {path}"),
            "javax.net.ssl.trustStoreType = PKCS12",
            "https.proxyHost = 127.0.0.1",
            "https.proxyPort = 8080",
            "http.nonProxyHosts = localhost|127.*|[::1]|*.svc",
        ] {
            assert!(shown.lines().any(|shown| shown.trim() == line), "{line} is not in {shown}");
        }
    }
}
