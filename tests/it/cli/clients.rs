//! Real clients, told by us where the proxy and the CA are: `doctor`, `env --shims`, `env --k8s`, the truststore.
//!
//! A client that is not on this machine is skipped, with a sentence.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::{Desk, Done};
use crate::support::skip;

/// Far beyond what any client needs on a busy machine.
const SECONDS: &str = "120";

/// What the doctor found, by client.
fn doctor(desk: &Desk, only: &str, more: &[&str]) -> Value {
    let mut command = desk.command(&["doctor", "--json", "--timeout", SECONDS, "--only", only]);
    let output = command.args(more).env("TMPDIR", desk.directory.path()).output().expect("the binary starts");
    let left = std::fs::read_dir(desk.directory.path()).expect("a directory");
    let left: Vec<_> =
        left.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"valetkey-")).collect();
    assert!(left.is_empty(), "{left:?}");
    let done = Done::of(&output);
    let found = done.json();
    assert_eq!(done.code, Some(i32::from(found["works"] == false)), "{}", done.out);
    found
}

/// Those that are installed; that there are none is said.
fn clients<'a>(found: &'a Value, only: &str) -> &'a [Value] {
    let clients = found["clients"].as_array().expect("a list");
    if clients.is_empty() {
        skip(format!("no {only} on this machine"));
    }
    clients
}

/// These clients, where they are installed, find proxy and CA.
fn come_through(only: &str) {
    let found = doctor(&Desk::new(), only, &[]);
    for client in clients(&found, only) {
        assert_eq!(
            (&client["proxy"], &client["ca"], &client["fix"]),
            (&true.into(), &true.into(), &Value::Null),
            "{client}"
        );
    }
}

#[test]
fn command_line_clients_come_through() {
    come_through("curl,wget,git");
}

#[test]
fn python_comes_through() {
    come_through("python,pip");
}

#[test]
fn node_comes_through_by_every_way_that_libraries_go() {
    come_through("node");
}

#[test]
fn java_comes_through() {
    come_through("java");
}

#[test]
fn without_shims_the_doctor_says_what_is_missing() {
    let only = "wget,node-agent";
    let found = doctor(&Desk::new(), only, &["--no-shims"]);
    for client in clients(&found, only) {
        let (proxy, ca) = if client["client"] == "wget" { (true, Value::from(false)) } else { (false, Value::Null) };
        assert_eq!((&client["proxy"], &client["ca"]), (&proxy.into(), &ca), "{client}");
        assert!(client["fix"].as_str().is_some_and(|fix| fix.contains("--shims")), "{client}");
    }
}

#[test]
fn the_doctor_knows_its_clients_and_says_so() {
    let desk = Desk::new();
    desk.run(&["doctor", "--only", "pyhton"]).ends(2).says("python-urllib");
    let mut nothing = desk.command(&["doctor", "--json"]);
    let done = Done::of(&nothing.env("PATH", desk.directory.path()).output().expect("the binary starts")).ends(0);
    assert_eq!(done.json()["clients"], Value::Array(Vec::new()));
}

/// What is found of a client `curl` that is this shell script.
fn doctor_of(script: &str, more: &[&str]) -> Value {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("bin")).expect("a directory");
    desk.write("bin/curl", &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(desk.path("bin/curl"), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let mut command = desk.command(&["doctor", "--json", "--timeout", SECONDS, "--only", "curl"]);
    // The directory is found from where the doctor is started, not from where the client is.
    let output = command.args(more).env("PATH", "bin:/usr/bin:/bin").output().expect("the binary starts");
    Done::of(&output).ends(1).json()["clients"][0].take()
}

#[test]
fn a_client_that_fails_is_not_said_to_come_through() {
    let unresolved = "echo 'curl 9.9'; echo status=000; echo 'curl: (6) Could not resolve host: x' >&2; exit 6";
    for more in [&[][..], &["--as-is"]] {
        let found = doctor_of(unresolved, more);
        assert_eq!((&found["version"], &found["proxy"]), (&"9.9".into(), &false.into()), "{found}");
        let found = doctor_of("echo status=000; echo 'curl: (7) Failed to connect to 127.0.0.1' >&2; exit 7", more);
        assert_eq!(found["proxy"], Value::Null, "{found}");
        let found = doctor_of("exit 3", more);
        assert_eq!(found["proxy"], Value::Null, "it fell over before it asked anybody: {found}");
        let found = doctor_of("kill -KILL $$", more);
        assert_eq!(found["proxy"], Value::Null, "{found}");
    }
}

#[test]
fn python_starts_as_before_under_the_shim() {
    let desk = Desk::new();
    desk.run(&["env", "--shims", "shims"]).ends(0);
    for (directory, file, content) in [
        ("own", "sitecustomize.py", "print('theirs ran')\n"),
        ("lib/aiohttp", "__init__.py", "from .client import ClientSession\n"),
        (
            "lib/aiohttp",
            "client.py",
            "class ClientSession:\n  def __init__(self, *, trust_env=False): self.e = trust_env\n",
        ),
        ("lib", "stripe.py", "ca_bundle_path = 'its own'\n"),
        ("lib", "ca.pem", ""),
    ] {
        std::fs::create_dir_all(desk.path(directory)).unwrap();
        desk.write(&format!("{directory}/{file}"), content);
    }
    let script = r#"command -v python3 > /dev/null || { echo skipped; exit; }
        "$V" env --shims again > /dev/null 2>&1
        export PYTHONPATH="$PWD/own:$PWD/lib"
        eval "$("$V" env --shims shims 2> /dev/null)"; eval "$("$V" env --shims again 2> /dev/null)"
        SSL_CERT_FILE=lib/ca.pem exec python3 -W error -c "
import importlib.util, stripe, aiohttp
print(stripe.ca_bundle_path, aiohttp.ClientSession().e, aiohttp.ClientSession(trust_env=False).e)""#;
    let done = desk.sh(script).ends(0);
    if done.out.starts_with("skipped") {
        return skip("no python3 on this machine");
    }
    assert_eq!(done.out, "theirs ran\nlib/ca.pem True False\n");
    assert!(done.err.is_empty(), "{}", done.err);
}

#[test]
fn node_goes_directly_where_it_was_told_to() {
    let desk = Desk::new();
    let script = r#"command -v node > /dev/null || { echo skipped; exit; }
        eval "$("$V" env --proxy 127.0.0.1:1 --no-proxy .direct.invalid,10.0.0.0/8 --shims shims 2> /dev/null)"
        exec node -e "
const https = require('node:https');
const say = (url, error) => console.log(url, error.code, error.address || '');
const ask = (url) => new Promise((done) => https.get(url).on('error', (error) => done(say(url, error))));
const fetched = (url) => fetch(url).catch((error) => say(url, error.cause));
(async () => {
  for (const how of [ask, fetched]) {
    await how('https://through.invalid/');
    await how('https://a.direct.invalid/');
    await how('https://127.0.0.1:2/');
  }
})();""#;
    let done = desk.sh(script).ends(0);
    if done.out.starts_with("skipped") {
        return skip("no node on this machine");
    }
    let lines: Vec<&str> = done.out.lines().map(str::trim_end).collect();
    assert_eq!(lines.len(), 6, "{}", done.out);
    for ways in lines.chunks(3) {
        assert_eq!(ways[0], "https://through.invalid/ ECONNREFUSED 127.0.0.1", "the proxy is asked, and is not there");
        assert!(ways[1].starts_with("https://a.direct.invalid/ E") && !ways[1].contains("REFUSED"), "{}", ways[1]);
        assert_eq!(ways[2], "https://127.0.0.1:2/ ECONNREFUSED 127.0.0.1");
    }
}

#[test]
fn a_pod_gets_a_list_with_the_directories_that_it_sees() {
    let desk = Desk::new();
    let done =
        desk.run(&["env", "--k8s", "--ca-publish", "/run/valetkey/public", "--shims", "/run/valetkey/shims"]).ends(0);
    assert!(done.err.is_empty(), "files of the pod are not looked for here: {}", done.err);
    for pair in [
        ["- name: HTTPS_PROXY", "  value: \"http://127.0.0.1:8080\""],
        ["- name: SSL_CERT_FILE", "  value: \"/run/valetkey/public/ca-bundle.pem\""],
        ["- name: NODE_USE_ENV_PROXY", "  value: \"1\""],
        ["- name: PYTHONPATH", "  value: \"/run/valetkey/shims\""],
        ["- name: WGETRC", "  value: \"/run/valetkey/shims/wgetrc\""],
    ] {
        assert!(done.out.contains(&format!("{}\n{}\n", pair[0], pair[1])), "{pair:?} is not in:\n{}", done.out);
    }
    assert!(done.out.lines().all(|line| line.starts_with("- name: ") || line.starts_with("  value: \"")));
    desk.run(&["env", "--k8s"]).ends(2).says("--ca-publish certs/public").says("as the agent's container sees it");
    desk.run(&["env", "--k8s", "--json"]).ends(2);
}

#[test]
fn a_truststore_is_published_and_written_on_request() {
    let desk = Desk::new();
    desk.run(&["ca", "init", "--ca-publish", "public"]).ends(0).shows("public/truststore.p12");
    desk.run(&["ca", "bundle", "--truststore", "own.p12"]).ends(0).says("changeit");
    desk.run(&["ca", "bundle", "--truststore", "own.p12", "--json"]).ends(2);
    desk.run(&["ca", "bundle", "--truststore", "no/own.p12"]).ends(1).says("cannot write");
    let script = "command -v keytool > /dev/null || { echo skipped; exit; }
        for store in own.p12 public/truststore.p12; do
            keytool -list -keystore $store -storepass changeit | grep -c trustedCertEntry
        done";
    let done = desk.sh(script).ends(0);
    if done.out.starts_with("skipped") {
        return skip("no keytool on this machine");
    }
    let certificates = desk.read("public/ca-bundle.pem").matches("BEGIN CERTIFICATE").count();
    assert_eq!(done.out, format!("{certificates}\n{certificates}\n"));
}
