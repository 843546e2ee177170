//! What works without a sidecar: `env`, `ca`, `policy`.

use std::os::unix::fs::PermissionsExt;

use super::{Desk, root_policy};

#[test]
fn env_is_read_by_a_shell() {
    let desk = Desk::new();
    let odd = desk.path("it's $HOME");
    std::fs::create_dir(&odd).unwrap();
    let script = r#"eval "$("$V" env --proxy 127.0.0.1:9 --no-proxy .svc,10.0.0.0/8 --ca-publish "it's \$HOME")"
        printf '%s\n' "$HTTPS_PROXY" "$https_proxy" "$no_proxy" "$SSL_CERT_FILE" "$NODE_EXTRA_CA_CERTS" "$NODE_USE_ENV_PROXY""#;
    let done = desk.sh(script).ends(0).says("serve --ca-publish");
    let odd = odd.canonicalize().unwrap();
    let lines: Vec<&str> = done.out.lines().collect();
    let proxy = "http://127.0.0.1:9";
    let bundle = odd.join("ca-bundle.pem");
    let own = odd.join("ca.pem");
    let wanted =
        [proxy, proxy, "localhost,127.0.0.1,::1,.svc,10.0.0.0/8", bundle.to_str().unwrap(), own.to_str().unwrap(), "1"];
    assert_eq!(lines, wanted);
}

#[test]
fn env_has_three_forms_and_is_quiet_once_the_files_are_there() {
    let desk = Desk::new();
    desk.run(&["ca", "init", "--ca-publish", "certs/public"]).ends(0);
    let done = desk.run(&["env", "--json"]).ends(0);
    let object = done.json();
    assert!(done.err.is_empty(), "{}", done.err);
    assert_eq!(object["HTTP_PROXY"], "http://127.0.0.1:8080");
    let file = object["REQUESTS_CA_BUNDLE"].as_str().unwrap();
    assert!(std::fs::read_to_string(file).unwrap().contains("BEGIN CERTIFICATE"));
    desk.run(&["env", "--dotenv"]).ends(0).shows("\nhttps_proxy=http://127.0.0.1:8080\n");
    desk.run(&["env", "--shell"]).ends(0).shows("export npm_config_cafile='/");
}

#[test]
fn a_ca_is_made_once_shown_and_bundled() {
    let desk = Desk::new();
    desk.run(&["ca", "show"]).ends(4).says("valetkey ca init");
    desk.run(&["ca", "bundle"]).ends(4);
    assert!(!desk.path("certs").exists(), "reading makes nothing");
    let made = desk.run(&["ca", "init", "--json"]).ends(0).json();
    assert_eq!((&made["made"], &made["is_valid"]), (&true.into(), &true.into()));
    let again = desk.run(&["ca", "init", "--json"]).ends(0).json();
    assert_eq!((&again["made"], &again["fingerprint_sha256"]), (&false.into(), &made["fingerprint_sha256"]));
    desk.run(&["ca", "show"]).ends(0).shows(made["fingerprint_sha256"].as_str().unwrap());
    let bundle = desk.run(&["ca", "bundle"]).ends(0);
    assert!(bundle.out.ends_with(&desk.read("certs/ca-cert.pem")), "ours is the last");
    assert!(bundle.out.matches("BEGIN CERTIFICATE").count() > 10 && !bundle.out.contains("PRIVATE"));
    desk.run(&["ca", "bundle", "--output", "b.pem"]).ends(0).says("b.pem");
    assert_eq!(desk.read("b.pem"), bundle.out);
    assert_eq!(desk.run(&["ca", "bundle", "--json"]).ends(0).json()["pem"], bundle.out.as_str());
    desk.run(&["ca", "bundle", "--output", "no/b.pem"]).ends(1).says("cannot write");
}

#[test]
fn a_ca_that_cannot_be_used_ends_with_4_and_can_still_be_shown() {
    let desk = Desk::new();
    desk.run(&["ca", "init"]).ends(0);
    let key = desk.path("certs/ca-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    desk.run(&["ca", "init"]).ends(4).says("chmod 0400");
    std::fs::remove_file(&key).unwrap();
    desk.run(&["ca", "show", "--json"]).ends(0).json();
    desk.run(&["ca", "init", "--ca-publish", "certs"]).ends(4);
    desk.write("certs/ca-cert.pem", "no certificate");
    desk.run(&["ca", "show"]).ends(4).says("restore the file");
}

#[test]
fn a_policy_is_checked() {
    let desk = Desk::new();
    desk.run(&["policy", "check", &root_policy()]).ends(0).shows("is in order: 6 services");
    assert_eq!(desk.run(&["policy", "check", &root_policy(), "--json"]).ends(0).json()["ok"], true);
    desk.run(&["policy", "check"]).ends(3).says("policy.toml");
    desk.write("policy.toml", "version = 1\nservces = 1\n[egress]\nunlisted = \"perhaps\"\n");
    let done = desk.run(&["policy", "check"]).ends(3).says("servces").says("unlisted").says("2 mistakes");
    assert!(done.out.is_empty());
    let done = desk.run(&["policy", "check", "--json"]).ends(3).json();
    let lines: Vec<_> = done["mistakes"].as_array().unwrap().iter().map(|mistake| mistake["line"].as_u64()).collect();
    assert_eq!((lines, &done["ok"]), (vec![Some(2), Some(4)], &false.into()));
    desk.run(&["policy", "show"]).ends(3);
    desk.run(&["policy", "explain", "GET", "https://a.test/"]).ends(3);
}

#[test]
fn what_is_shown_is_a_policy_with_the_same_meaning() {
    let desk = Desk::new();
    let shown = desk.run(&["policy", "show", &root_policy()]).ends(0);
    desk.write("shown.toml", &shown.out);
    assert_eq!(desk.run(&["policy", "show", "shown.toml"]).ends(0).out, shown.out);
    let json = desk.run(&["policy", "show", &root_policy(), "--json"]).ends(0).json();
    assert_eq!(json["services"]["stripe"]["credential"], "stripe");
}

#[test]
fn commands_as_sources_are_allowed_on_request() {
    let desk = Desk::new();
    let exec =
        "version = 1\n[credentials.a]\nsource = \"exec\"\ncommand = [\"/bin/echo\", \"x\"]\nhosts = [\"a.test\"]\n";
    desk.write("policy.toml", exec);
    desk.run(&["policy", "check"]).ends(3).says("allow-exec");
    desk.run(&["policy", "check", "--allow-exec"]).ends(0).says("no service uses it");
}

#[test]
fn a_request_is_explained() {
    let desk = Desk::new();
    desk.write("policy.toml", &std::fs::read_to_string(root_policy()).unwrap());
    let refunds = ["policy", "explain", "POST", "https://api.stripe.com/v1/refunds"];
    desk.run(&refunds).ends(0).shows("\nallowed\n").shows("stripe:write:refunds").shows("rule        POST /v1/refunds");
    let with = |more: &[&str]| desk.run(&[&refunds[..], more].concat());
    with(&["--scope", "read:customers"])
        .ends(0)
        .shows("refused out_of_scope")
        .shows("would    stripe:write:refunds (high)");
    with(&["--scope", "read:customers", "--expect", "deny"]).ends(0);
    with(&["--scope", "read:customers", "--expect", "allow"]).ends(1).says("expected it to be allowed");
    with(&["--expect", "deny"]).ends(1);
    with(&["--agent", "nobody"]).ends(2).says("there are: billing, coder, warehouse");
    let answer = with(&["--agent", "coder", "--json"]).ends(0).json();
    assert_eq!((&answer["allowed"], &answer["code"]), (&false.into(), &"nonce_misplaced".into()));
    assert_eq!(answer["would"][0]["agents"][0], "billing");
    let explain = |method, url| desk.run(&["policy", "explain", method, url]);
    explain("GET", "https://example.com/").ends(0).shows("host_not_listed");
    explain("GET", "http://api.stripe.com/v1/customers").ends(0).shows("cleartext_forbidden");
    explain("POST", "https://api.stripe.com/v1/ephemeral_keys").ends(0).shows("deny     * /v1/ephemeral_keys");
    let secret = explain("GET", "https://api.stripe.com/v1/customers?email=ana").ends(0);
    assert!(!secret.out.contains("ana"), "a query may hold what no log should");
    explain("GET", "api.stripe.com").ends(2).says("https://");
}
