//! `valetkey ca`: the local CA, without a sidecar.

mod rotate;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use jiff::Timestamp;
use serde::Serialize;

use super::{Failure, print};
use crate::authority::{
    Authority, AuthorityError, CERTIFICATE_FILE, Description, Home, KEY_FILE, PUBLISHED_BUNDLE_FILE, PUBLISHED_FILE,
    PUBLISHED_TRUSTSTORE_FILE, Permitted, PublicPart, TRUSTSTORE_PASSWORD,
};
use crate::clock::{Clock, SharedClock, SystemClock};
use crate::model::Host;
use crate::{config, door};

/// What `--ca-publish` writes.
const PUBLISHED: [&str; 3] = [PUBLISHED_FILE, PUBLISHED_BUNDLE_FILE, PUBLISHED_TRUSTSTORE_FILE];

const EXAMPLES: &str = "Examples:
  valetkey ca init                               make one in certs/, or check the one there
  valetkey ca init --ca-publish certs/public     and write the files that `valetkey env` names
  valetkey ca init --constrain --ca-dir narrow   make one that can sign for the policy's hosts alone
  valetkey ca rotate --ca-publish certs/public   make the next one, and publish both
  valetkey ca rotate --finish                    let it sign, once every client has read both
  valetkey ca bundle --output ca-bundle.pem      the system's roots and ours, for clients that take one file
  valetkey ca bundle --truststore roots.p12      the same for Java; the password is changeit";

/// Flags of `valetkey ca`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the CA if there is none, and check that it can be used.
    Init {
        #[command(flatten)]
        place: Place,
        /// Also write ca.pem, ca-bundle.pem and truststore.p12, and nothing secret, into this directory.
        #[arg(long, env = "VALETKEY_CA_PUBLISH", value_name = "DIR", value_hint = ValueHint::DirPath)]
        ca_publish: Option<PathBuf>,
        /// Limit it to the hosts of the policy, by name constraints: for one that goes into a system's store. Clients
        /// refuse what it signs for any other host, so a host that is added later needs a new CA.
        #[arg(long)]
        constrain: bool,
        /// The policy file for --constrain.
        #[arg(long, env = "VALETKEY_POLICY", value_name = "FILE", default_value = "policy.toml", value_hint = ValueHint::FilePath)]
        policy: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Change the CA in two steps: make the next one beside it, and let that one sign.
    Rotate {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        rotate: rotate::Arguments,
    },
    /// Show the CA's subject, fingerprint, times and files; reads no key.
    Show {
        #[command(flatten)]
        place: Place,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the system's roots and our CA as PEM; reads no key.
    Bundle {
        #[command(flatten)]
        place: Place,
        /// Write into this file instead.
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
        /// Write PKCS#12 for Java into this file instead; its password is changeit.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "json"], value_hint = ValueHint::FilePath)]
        truststore: Option<PathBuf>,
        /// Print JSON: the bundle, how many certificates it holds, and where it was written.
        #[arg(long)]
        json: bool,
    },
}

/// Where the CA is.
#[derive(Debug, Args)]
struct Place {
    /// Where the CA's key and certificate are kept.
    #[arg(long, env = "VALETKEY_CA_DIR", value_name = "DIR", default_value = "certs", value_hint = ValueHint::DirPath)]
    ca_dir: PathBuf,
}

/// Runs one of them.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Init { place, ca_publish, constrain, policy, json } => {
            let permitted = constrain.then(|| hosts(policy)).transpose()?;
            init(&place.ca_dir, ca_publish.as_deref(), permitted.as_ref(), *json)
        }
        Command::Rotate { place, rotate } => rotate.run(&place.ca_dir),
        Command::Show { place, json } => show(&read(&place.ca_dir)?, &place.ca_dir, *json),
        Command::Bundle { place, truststore: Some(path), .. } => truststore(&read(&place.ca_dir)?, path),
        Command::Bundle { place, output, json, truststore: None } => {
            bundle(&read(&place.ca_dir)?, output.as_deref(), *json)
        }
    }
}

/// Says what is wrong with the CA, and what to do.
pub(super) fn unusable(error: &AuthorityError) -> Failure {
    Failure::authority(format!("{error}\n  {}", error.hint()))
}

/// The hosts of a policy, and the agents' own door.
fn hosts(policy: &Path) -> Result<Permitted, Failure> {
    // Nothing of it is run or read here: credentials that need a command are as good as any.
    let loaded =
        config::load_policy(policy, true).map_err(|mistakes| super::policy::unusable_file(policy, &mistakes))?;
    let own = Host::parse(door::HOST).ok();
    let services = loaded.policy.services().iter().flat_map(|service| &service.hosts).map(|pattern| &pattern.host);
    Permitted::new(services.chain(&own)).ok_or_else(|| Failure::policy("the policy has no host to limit a CA to"))
}

fn init(directory: &Path, publish: Option<&Path>, permitted: Option<&Permitted>, json: bool) -> Result<(), Failure> {
    let is_new = !directory.join(CERTIFICATE_FILE).exists();
    let clock: SharedClock = std::sync::Arc::new(SystemClock);
    let opened = match permitted {
        None => Authority::open(&Home::Directory(directory.to_owned()), clock),
        Some(permitted) => Authority::open_constrained(directory, clock, permitted),
    };
    let authority = opened.map_err(|error| unusable(&error))?;
    if let Some(publish) = publish {
        authority.publish(publish).map_err(|error| unusable(&error))?;
    }
    let mut shown = Shown::of(&authority.describe(), directory);
    shown.made = Some(is_new);
    shown.published = publish.map(|publish| PUBLISHED.map(|name| publish.join(name)));
    if json {
        return print::json(&shown);
    }
    let headline = if is_new { "made a CA" } else { "the CA was there already and can be used" };
    print::text(&format!("{headline}\n{}", shown.render()))
}

fn read(directory: &Path) -> Result<PublicPart, Failure> {
    let read = PublicPart::read(directory).map_err(|error| unusable(&error))?;
    read.ok_or_else(|| {
        Failure::authority(format!(
            "there is no CA in {0}\n  `valetkey ca init --ca-dir {0}` makes one, `valetkey serve` too; --ca-dir names another place",
            directory.display()
        ))
    })
}

fn show(public: &PublicPart, directory: &Path, json: bool) -> Result<(), Failure> {
    let shown = Shown::of_both(public, directory);
    if json { print::json(&shown) } else { print::text(&shown.render()) }
}

fn bundle(public: &PublicPart, output: Option<&Path>, json: bool) -> Result<(), Failure> {
    let pem = public.ca_bundle_pem();
    let certificates = pem.matches("-----BEGIN CERTIFICATE-----").count();
    if let Some(path) = output {
        std::fs::write(path, &pem)
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))?;
    }
    match (output, json) {
        (_, true) => print::json(&serde_json::json!({
            "certificates": certificates,
            "output": output,
            "pem": output.is_none().then_some(pem),
        })),
        (None, false) => print::text(&pem),
        (Some(path), false) => {
            print::note(format_args!(
                "wrote {} to {}",
                print::count(certificates, "certificate", "certificates"),
                path.display()
            ));
            Ok(())
        }
    }
}

fn truststore(public: &PublicPart, path: &Path) -> Result<(), Failure> {
    std::fs::write(path, public.truststore())
        .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))?;
    print::note(format_args!("wrote {}; its password is {TRUSTSTORE_PASSWORD}", path.display()));
    Ok(())
}

/// What is said of a CA; also its JSON form.
#[derive(Debug, Serialize)]
struct Shown {
    subject: String,
    fingerprint_sha256: String,
    not_before: Timestamp,
    not_after: Timestamp,
    is_valid: bool,
    certificate: PathBuf,
    key: PathBuf,
    /// Fingerprint of the one that stands ready to sign after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_fingerprint_sha256: Option<String>,
    /// What it is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    permitted: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<[PathBuf; PUBLISHED.len()]>,
    #[serde(skip)]
    days_left: i64,
}

impl Shown {
    fn of(description: &Description, directory: &Path) -> Self {
        Self::at(description, directory, SystemClock.now().wall)
    }

    /// With the one that stands ready, where there is one.
    fn of_both(public: &PublicPart, directory: &Path) -> Self {
        let next = public.describe_next().map(|next| fingerprint(&next.fingerprint_sha256));
        Self { next_fingerprint_sha256: next, ..Self::of(public.describe(), directory) }
    }

    fn at(description: &Description, directory: &Path, now: Timestamp) -> Self {
        Self {
            subject: description.subject.clone(),
            fingerprint_sha256: fingerprint(&description.fingerprint_sha256),
            not_before: description.not_before,
            not_after: description.not_after,
            is_valid: description.not_before <= now && now < description.not_after,
            certificate: directory.join(CERTIFICATE_FILE),
            key: directory.join(KEY_FILE),
            next_fingerprint_sha256: None,
            permitted: description.permitted.as_ref().map(Permitted::texts),
            made: None,
            published: None,
            days_left: description.not_after.duration_since(now).as_secs() / 86_400,
        }
    }

    fn render(&self) -> String {
        let ends = match (self.is_valid, self.days_left) {
            (true, 0) => "today".to_owned(),
            (true, days) => format!("in {}", print::count(usize::try_from(days).unwrap_or(0), "day", "days")),
            (false, _) => "NOT VALID NOW: remove key and certificate, then valetkey ca init".to_owned(),
        };
        let mut block = print::Block::default();
        block
            .fact("subject", &self.subject)
            .fact("sha256", &self.fingerprint_sha256)
            .fact("begins", self.not_before)
            .fact("ends", format_args!("{} ({ends})", self.not_after))
            .fact("certificate", self.certificate.display())
            .fact("key", self.key.display());
        if let Some(next) = &self.next_fingerprint_sha256 {
            block.fact("next sha256", next);
        }
        if let Some(permitted) = &self.permitted {
            block.list("only for", permitted);
        }
        if let Some(published) = &self.published {
            block.list("published", published.iter().map(|path| path.display()));
        }
        block.render()
    }
}

/// As browsers and `openssl x509 -fingerprint` show it.
fn fingerprint(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for (at, byte) in bytes.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{byte:02X}", if at == 0 { "" } else { ":" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(now: &str) -> Shown {
        let description = Description {
            subject: "CN=valetkey local CA 00000000".to_owned(),
            fingerprint_sha256: [0xAB; 32],
            not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2027-01-01T00:00:00Z".parse().unwrap(),
            home: Home::Memory,
            permitted: None,
        };
        Shown::at(&description, Path::new("certs"), now.parse().unwrap())
    }

    #[test]
    fn a_ca_is_shown_with_how_long_it_lasts() {
        let text = anstream::adapter::strip_str(&shown("2026-12-30T00:00:00Z").render()).to_string();
        assert!(text.contains("2027-01-01T00:00:00Z (in 2 days)"), "{text}");
        assert!(text.contains("AB:AB:AB"), "{text}");
        assert!(shown("2026-12-31T12:00:00Z").render().contains("(today)"));
    }

    #[test]
    fn one_that_is_over_or_not_begun_is_said_to_be() {
        for now in ["2027-01-01T00:00:00Z", "2025-12-31T23:59:59Z"] {
            let shown = shown(now);
            assert!(!shown.is_valid && shown.render().contains("NOT VALID NOW"), "{now}");
        }
    }
}
