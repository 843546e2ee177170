//! The reader from the outside: vectors, the policy at the root, presets, files that cannot be read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::model::{AgentName, Host, ServiceName};
use crate::policy::{MintRequest, RequestFacts, Target, Verdict};

/// The least that is a policy; tests put more behind it.
const BASE: &str = r#"
version = 1
[credentials.c]
source = "env"
name = "KEY"
hosts = ["api.test.example"]
[services.s]
hosts = ["api.test.example"]
credential = "c"
slots = ["bearer"]
[[services.s.scopes]]
name = "read"
risk = "low"
allow = ["GET /v1/things"]
"#;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn load(text: &str) -> Result<Loaded, Mistakes> {
    check_policy(&Arc::from("policy.toml"), text.as_bytes().to_vec(), false)
}

#[track_caller]
fn mistakes(text: &str) -> Mistakes {
    load(text).err().expect("the policy must be refused")
}

#[track_caller]
fn loaded(text: &str) -> Loaded {
    load(text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// `line:column code` of each mistake.
fn summary(mistakes: &Mistakes) -> String {
    mistakes.items().iter().fold(String::new(), |mut text, mistake| {
        let _ = writeln!(text, "{}:{} {}", mistake.line, mistake.column, mistake.code.as_str());
        text
    })
}

#[test]
fn every_vector_has_its_mistakes_and_no_others() {
    let mut seen = std::collections::BTreeSet::new();
    let mut count = 0;
    for entry in std::fs::read_dir(root("tests/vectors/policies")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let allow_exec = path.file_name().unwrap().to_str().unwrap().contains("allow-exec");
        let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap();
        let found = match load_policy(&path, allow_exec) {
            Ok(_) => String::new(),
            Err(mistakes) => {
                seen.extend(mistakes.items().iter().map(|mistake| mistake.code.as_str()));
                summary(&mistakes)
            }
        };
        assert_eq!(found, expected, "{}", path.display());
    }
    assert!(count >= 20, "vectors are missing");
    for code in ["unknown_key", "not_supported", "dangling", "unreachable", "self_mint", "host_not_covered"] {
        assert!(seen.contains(code), "no vector shows {code}");
    }
}

#[test]
fn the_policy_at_the_root_is_in_force_without_a_warning() {
    let loaded = load_policy(&root("policy.toml"), false).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.policy.services().len(), 6);
    let expected = ["ANTHROPIC_API_KEY", "GITHUB_TOKEN", "OPENAI_API_KEY", "SLACK_BOT_TOKEN", "STRIPE_RESTRICTED_KEY"];
    assert_eq!(read_environment(&loaded), expected);
}

#[test]
fn what_is_printed_is_the_same_policy() {
    let first = load_policy(&root("policy.toml"), false).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let text = effective(&first).to_string();
    let second = loaded(&text);
    assert_eq!(text, effective(&second).to_string());
    let json = serde_json::to_value(effective(&first)).unwrap();
    assert_eq!(json["services"]["github"]["preset"], "github@1");
    assert_eq!(json["services"]["stripe"]["scopes"][1]["rules"][0]["query"][0], "customer");
    assert_eq!(json["nonces"]["ceilings"]["high"]["lifetime"], "30m");
}

fn with_preset(name: &str) -> String {
    let hosts =
        r#"["api.stripe.com", "api.github.com", "github.com", "slack.com", "api.openai.com", "api.anthropic.com"]"#;
    format!(
        "version = 1\n[credentials.c]\nsource = \"env\"\nname = \"KEY\"\nhosts = {hosts}\n[services.s]\npreset = \"{name}\"\ncredential = \"c\"\n"
    )
}

#[test]
fn every_preset_is_whole_and_clean() {
    for name in preset::names() {
        let loaded = loaded(&with_preset(name));
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{name}");
        let service = loaded.policy.services().first().unwrap();
        assert!(!service.deny.is_empty() && service.placeholder.is_some(), "{name}");
        assert!(preset::text(name).is_some());
    }
}

#[test]
fn the_reference_names_every_preset_scope() {
    let reference = std::fs::read_to_string(root("docs/POLICY.md")).unwrap();
    for name in preset::names() {
        let row = reference.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap();
        let loaded = loaded(&with_preset(name));
        let scopes: Vec<_> = loaded.policy.services()[0].scopes.iter().map(|s| format!("`{}`", s.name)).collect();
        assert_eq!(row, format!("| `{name}` | {} |", scopes.join(", ")));
    }
}

/// Asks a preset's service with all of its scopes.
fn ask(loaded: &Loaded, method: &str, host: &str, target: &str) -> bool {
    let service = loaded.policy.service(&ServiceName::parse("s").unwrap()).unwrap();
    let scopes: Vec<_> = service.scopes.iter().map(|scope| scope.name.clone()).collect();
    let (host, target) = (Host::parse(host).unwrap(), Target::parse(target).unwrap());
    let facts = RequestFacts { method, websocket: false, host: &host, target: &target };
    matches!(loaded.policy.decide(&service.name, &scopes, &[], &facts), Verdict::Allow { .. })
}

#[test]
fn presets_open_what_they_say_and_hand_out_no_credential() {
    let cases = std::fs::read_to_string(root("tests/vectors/policies/presets.txt")).unwrap();
    let mut count = 0;
    for case in cases.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let [preset, expected, method, host, target] = case.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let allowed = ask(&loaded(&with_preset(preset)), method, host, target);
        assert_eq!(allowed, expected == "allow", "{case}");
        count += 1;
    }
    assert!(count > 40);
}

#[test]
fn a_deny_of_a_preset_wins_over_an_allow_that_only_overlaps_it() {
    let text = with_preset("stripe@1")
        + "[[services.s.scopes]]\nname = \"all\"\nrisk = \"high\"\nallow = [\"POST /v1/{*path}\"]\n";
    let loaded = loaded(&text);
    assert!(ask(&loaded, "POST", "api.stripe.com", "/v1/customers"));
    assert!(!ask(&loaded, "POST", "api.stripe.com", "/v1/ephemeral_keys"));
    assert!(!ask(&loaded, "GET", "api.stripe.com", "/v1/customers"), "the file's scopes replace the preset's");
}

#[test]
fn what_the_file_says_replaces_the_preset_key_by_key() {
    let loaded = loaded(&(with_preset("stripe@1") + "slots = [\"bearer\"]\ndeny = []\ndialect = \"grpc\"\n"));
    let service = loaded.policy.services().first().unwrap();
    assert_eq!(service.slots, [crate::policy::Slot::Bearer]);
    assert!(service.deny.is_empty());
    assert_eq!(service.dialect, crate::policy::Dialect::Grpc);
    assert_eq!(service.scopes.len(), 9, "scopes are the preset's, since the file has none");
}

#[test]
fn a_mistake_in_a_preset_is_shown_where_the_file_names_it() {
    let text = with_preset("github@1").replace("\"github.com\", ", "");
    let mistakes = mistakes(&text);
    assert_eq!(summary(&mistakes), "8:14 host_not_covered\n");
    let text = with_preset("stripe@1") + "deny = [\"POST /v1/refunds\"]\n";
    let found = self::mistakes(&text);
    assert_eq!(summary(&found), "7:10 unreachable\n");
    assert!(found.items()[0].message.contains("from preset stripe@1"));
}

#[test]
fn defaults_are_those_of_the_documents() {
    let loaded = loaded(BASE);
    let shown = serde_json::to_value(effective(&loaded)).unwrap();
    assert_eq!(
        shown["egress"],
        serde_json::json!({"unlisted": "deny", "private_networks": "deny", "proxy_auth": "none"})
    );
    assert_eq!(shown["nonces"]["ttl"], "5m");
    assert_eq!(shown["nonces"]["on_misplaced"], "revoke");
    let ceilings = serde_json::json!({
        "low": {"ttl": "30m", "lifetime": "24h"},
        "medium": {"ttl": "15m", "lifetime": "4h"},
        "high": {"ttl": "5m", "lifetime": "30m"},
    });
    assert_eq!(shown["nonces"]["ceilings"], ceilings);
    let service = loaded.policy.services().first().unwrap();
    assert!(service.scrub && !service.private && !service.cleartext && !service.anonymous);
}

#[test]
fn a_ceiling_of_the_file_caps_the_default_ttl() {
    let text = format!(
        "{BASE}[nonces.ceilings]\nlow = {{ ttl = \"1m\" }}\nmedium = {{ ttl = \"1m\" }}\nhigh = {{ ttl = \"1m\" }}\n\
         [agents.a]\nidentity = [\"uid:1000\"]\ngrants = {{ s = [\"read\"] }}\n"
    );
    let grant = crate::model::Grant {
        service: ServiceName::parse("s").unwrap(),
        scopes: vec![crate::model::ScopeName::parse("read").unwrap()],
    };
    let request = MintRequest { agent: AgentName::parse("a").unwrap(), grants: vec![grant], ttl: None, rate: None };
    let plan = loaded(&text).policy.plan(&request).unwrap();
    assert_eq!(plan.ttl, std::time::Duration::from_secs(60));
}

#[test]
fn weak_settings_are_said() {
    let text = BASE
        .replace("api.test.example", "10.0.0.1")
        .replace("slots", "scrub = false\ncleartext = true\nanonymous = true\nslots")
        + "[egress]\nunlisted = \"tunnel\"\n\
           [credentials.spare]\nsource = \"env\"\nname = \"SPARE\"\nhosts = [\"a.example\"]\n\
           [agents.a]\nidentity = [\"any\"]\ngrants = { s = [\"read\"] }\n\
           [agents.b]\nidentity = [\"uid:7\"]\ngrants = { s = [\"read\"] }\n\
           [agents.c]\nidentity = [\"uid:7\"]\ngrants = { s = [\"read\"] }\n";
    let warnings = loaded(&text).warnings.join("\n");
    for about in [
        "services.s.scrub",
        "services.s.cleartext",
        "services.s.anonymous",
        "egress.unlisted",
        "credentials.spare",
        "agents.a.identity",
        "agents b, c share uid:7",
        "services.s.hosts",
        "port 80",
    ] {
        assert!(warnings.contains(about), "{about}: {warnings}");
    }
}

#[test]
fn no_form_of_a_mistake_repeats_what_could_be_a_secret() {
    let secret = "correct-horse-battery-staple";
    let places = [
        format!("[credentials.x]\nsource = \"{secret}\"\n"),
        format!("[credentials.x]\nsource = \"env\"\nname = \"{secret}\"\nhosts = [\"a.example\"]\n"),
        format!("[credentials.x]\nsource = \"env\"\nvalue = \"{secret}\" # {secret}\nhosts = [\"a.example\"]\n"),
        format!("[credentials.x]\nsource = \"file\"\npath = \"{secret}\"\nhosts = [\"a.example\"]\n"),
        format!("[credentials]\nx = {{ source = \"exec\", command = [\"/bin/x\", \"{secret}\"], hosts = [] }}\n"),
        format!("[services.x]\nplaceholder = \"{secret}\"\n"),
        format!("[services.x]\nplaceholder = \"{secret}\n"),
        format!("[agents.x]\nidentity = [\"bearer:{secret}\"]\n"),
        format!("[agents.x]\nidentity = [\"{secret}\"]\n"),
        format!("[[services.s.scopes]]\nname = \"x\"\nrisk = \"low\"\nallow = [\"GET /x?key={secret}\"]\n"),
        format!("[webhooks]\nsecret = \"{secret}\"\n"),
        format!("secret = {secret}\n"),
        format!("x = \"\"\"\n{secret}\n"),
    ];
    for place in places {
        let found = mistakes(&format!("{BASE}{place}"));
        let json = serde_json::to_string(found.items()).unwrap();
        let forms =
            [found.to_string(), found.report(Look::Plain), found.report(Look::Colour), json, format!("{found:?}")];
        for form in forms {
            assert!(!form.contains(secret), "{place}\n{form}");
        }
    }
}

#[test]
fn real_keys_are_refused_wherever_they_stand() {
    let key = "ghp_16C7e42F292c6912E7710c838347Ae178B4a";
    let found = mistakes(&BASE.replace("\"KEY\"", &format!("\"{key}\"")));
    assert_eq!(summary(&found), "5:8 secret_in_policy\n");
    assert!(!found.report(Look::Plain).contains(key));
}

#[test]
fn every_form_names_line_and_column() {
    let found = mistakes(&(BASE.replace("risk", "rsik") + "[servces]\n"));
    let text = found.to_string();
    assert!(
        text.contains("policy.toml:13:1: services.s.scopes[0].rsik: there is no key `rsik` (did you mean `risk`?)")
    );
    assert!(text.ends_with("3 mistakes; nothing of this file is in force"), "{text}");
    assert!(!text.contains('\u{1b}'));
    let report = found.report(Look::Plain);
    assert!(report.contains("policy.toml:13:1]") && !report.contains('\u{1b}'), "{report}");
    assert!(found.report(Look::Colour).contains('\u{1b}'));
    let json = serde_json::to_value(found.items()).unwrap();
    assert_eq!(json[1]["code"], "unknown_key");
    assert_eq!(
        (&json[1]["line"], &json[1]["column"], &json[1]["file"]),
        (&13.into(), &1.into(), &"policy.toml".into())
    );
}

#[test]
fn there_is_an_end_to_what_is_shown() {
    let text = (0..500).fold(BASE.to_owned(), |text, n| format!("{text}[unknown{n}]\n"));
    let found = mistakes(&text);
    assert_eq!((found.items().len(), found.left_out()), (MISTAKES_SHOWN_MAX, 500 - MISTAKES_SHOWN_MAX));
    assert!(found.to_string().contains("500 mistakes, the first 200 shown"));
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let one = |path: &Path| {
        let found = load_policy(path, false).err().unwrap();
        assert_eq!(found.items().len(), 1);
        (found.items()[0].code, found.items()[0].message.clone())
    };
    assert_eq!(one(directory.path()), (Code::Unreadable, "is a directory".to_owned()));
    assert_eq!(one(&directory.path().join("none")), (Code::Unreadable, "the file is not there".to_owned()));
    assert_eq!(one(Path::new("/dev/null")), (Code::Unreadable, "is not a regular file".to_owned()));
    let file = directory.path().join("policy.toml");
    std::fs::write(&file, b"version = 1 # \xff").unwrap();
    assert_eq!(one(&file).0, Code::NotUtf8);
    std::fs::write(&file, vec![b'\n'; POLICY_BYTES_MAX + 1]).unwrap();
    assert_eq!(one(&file).0, Code::TooLarge);
    std::fs::write(&file, "").unwrap();
    assert_eq!(one(&file).0, Code::Missing);
}

#[test]
fn a_byte_order_mark_and_other_line_ends_shift_nothing() {
    let text = format!("\u{feff}{}", BASE.trim_start()).replace('\n', "\r\n");
    assert!(load(&text).is_ok());
    assert_eq!(summary(&mistakes(&text.replace("version", "vresion"))), "1:1 unknown_key\n1:1 missing\n");
}

#[test]
fn the_digest_is_that_of_the_bytes() {
    let expected = hex::encode(ring::digest::digest(&ring::digest::SHA256, BASE.as_bytes()));
    assert_eq!(&**loaded(BASE).policy.digest(), expected);
}

#[test]
fn commands_are_read_only_where_they_are_allowed() {
    let text = BASE.replace(
        "source = \"env\"\nname = \"KEY\"",
        "source = \"exec\"\ncommand = [\"/usr/bin/x\", \"a b\"]\nenvironment = [\"HOME\"]\nttl = \"10m\"",
    );
    assert_eq!(summary(&mistakes(&text)), "4:10 exec_not_allowed\n");
    let loaded = check_policy(&Arc::from("p"), text.into_bytes(), true).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let expected = SourceSpec::Exec {
        command: "/usr/bin/x".into(),
        arguments: vec!["a b".to_owned()],
        environment: vec!["HOME".to_owned()],
        ttl: std::time::Duration::from_secs(600),
        timeout: EXEC_TIMEOUT_DEFAULT,
    };
    assert_eq!(loaded.credentials[0].source, expected);
    assert_eq!(read_environment(&loaded), ["HOME"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,300}", at in 0..BASE.len()) {
        let mut cut = at;
        while !BASE.is_char_boundary(cut) { cut -= 1; }
        for text in [text.clone(), format!("{}{text}{}", &BASE[..cut], &BASE[cut..])] {
            if let Err(found) = load(&text) {
                proptest::prop_assert!(!found.items().is_empty());
                proptest::prop_assert!(found.items().iter().all(|item| !item.message.contains("put together")));
                let _ = (found.to_string(), found.report(Look::Plain));
            }
        }
    }
}
