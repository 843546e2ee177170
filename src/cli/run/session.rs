//! A sidecar to ask, private or attached, and the nonces that were minted there for this run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Arguments;
use super::environment::{Environment, Secrets};
use super::grants::{self, Plan, ServiceFacts};
use super::place::{self, Place};
use super::renewal::{self, Held};
use super::sidecar::{Settings, Sidecar};
use super::told::Told;
use super::voice::Voice;
use crate::authority;
use crate::cli::nonce::failed;
use crate::cli::{Failure, print};
use crate::config;
use crate::control::client::{Client, ClientError};
use crate::control::types::{Minted, NewNonce, ServiceList, TtlAsked};
use crate::model::Destination;

/// The policy of a private sidecar when nobody names one.
const POLICY: &str = "policy.toml";
/// Not what a sidecar says at each start of its policy, which `valetkey policy check` shows, and of this machine's limits.
const LOG_LEVEL: &str = "warn,valetkey::cli::serve=error";
/// How long the end of all nonces may take.
const REVOKE_MAX: Duration = Duration::from_secs(5);

/// What is known before any sidecar is asked.
#[derive(Default)]
pub(super) struct Known {
    credentials: Vec<String>,
    services: Vec<ServiceFacts>,
    agents: Vec<String>,
}

/// Reads the policy, where there is one to read.
///
/// # Errors
/// [`Failure`]: its mistakes, all at once, before anything is started.
pub(super) fn read(arguments: &Arguments) -> Result<Known, Failure> {
    let policy = match (&arguments.policy, &arguments.attach) {
        (Some(policy), _) => policy.clone(),
        (None, None) => PathBuf::from(POLICY),
        (None, Some(_)) => return Ok(Known::default()),
    };
    // The other sidecar has its own mind about commands; here only names are read.
    let allow_exec = arguments.allow_exec || arguments.attach.is_some();
    let loaded = config::load_policy(&policy, allow_exec)
        .map_err(|mistakes| Failure::policy(mistakes.report(config::Look::of_stderr())))?;
    let services = loaded.policy.services().iter().map(|service| ServiceFacts {
        name: service.name.to_string(),
        hosts: service.hosts.iter().map(ToString::to_string).collect(),
    });
    Ok(Known {
        credentials: config::read_environment(&loaded),
        services: services.collect(),
        agents: loaded.policy.agents().into_iter().map(ToString::to_string).collect(),
    })
}

/// A sidecar, and what this run has there.
pub(super) struct Session {
    client: Client,
    /// None if it is somebody else's.
    sidecar: Option<Sidecar>,
    place: Place,
    audit: Option<PathBuf>,
    secrets: Secrets,
    agent: String,
    task: String,
    plans: Vec<Plan>,
    held: Vec<Held>,
    proxy: Option<String>,
    renewals: Vec<JoinHandle<()>>,
    /// Whoever tells refusals, and how it learns that the command is over.
    told: Option<(JoinHandle<Told>, oneshot::Sender<()>)>,
    voice: Voice,
}

impl Session {
    /// Starts a sidecar, or finds the one that runs; mints nothing yet.
    pub(super) async fn open(arguments: &Arguments, mut known: Known) -> Result<Self, Failure> {
        let (place, voice) = (Place::new()?, arguments.voice());
        let run = format!("run-{}-{}", jiff::Timestamp::now().as_second(), std::process::id());
        let mut opened = None;
        if let Some(path) = &arguments.attach {
            let client = Client::new(path);
            known.learn(client.services().await.map_err(|error| unreachable(error, path))?);
            let ca = client.ca_pem().await.map_err(failed::say)?;
            authority::publish_certificate(&place.public(), &ca)
                .map_err(|error| Failure::remote(format!("the CA of the sidecar cannot be used: {error}")))?;
            opened = Some((client, None, None));
        }
        // Mistakes on the command line are told before a sidecar is started.
        let agent = whose(arguments.agent.as_deref(), &known.agents)?;
        let plans = grants::plan(&arguments.grants, &known.services)?;
        let (client, sidecar, audit) = match opened {
            Some(opened) => opened,
            None => private(arguments, &run, &place).await?,
        };
        let Known { credentials, services, .. } = known;
        let secrets = Secrets { credentials, services, keep: arguments.keep_env.clone() };
        let task = arguments.task.clone().unwrap_or(run);
        let (held, renewals) = (Vec::new(), Vec::new());
        Ok(Self {
            client,
            sidecar,
            place,
            audit,
            secrets,
            agent,
            task,
            plans,
            held,
            renewals,
            voice,
            proxy: None,
            told: None,
        })
    }

    /// What the command must not get.
    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Mints every nonce and puts it into the environment.
    pub(super) async fn mint(&mut self, arguments: &Arguments, environment: &mut Environment) -> Result<(), Failure> {
        for plan in &self.plans {
            let asked = NewNonce {
                agent: self.agent.clone(),
                task: self.task.clone(),
                grants: Some(plan.grants.clone()),
                ttl: arguments.ttl.as_deref().map(ttl),
                ..NewNonce::default()
            };
            let minted: Minted = self.client.mint(&asked, None).await.map_err(failed::say)?;
            // First of all: whatever happens now, it is revoked.
            self.held.push(Held::new(&minted, plan.names()));
            if let Some(warning) = &minted.warning {
                self.voice.warn(print::visible(warning));
            }
            for export in &plan.exports {
                environment.set(&export.name, export.value(&minted).as_str());
            }
            self.proxy = Some(minted.proxy.clone());
        }
        Ok(())
    }

    /// The nonces, without the nonces.
    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    /// The variables that hold them.
    pub(super) fn exported(&self) -> Vec<&str> {
        self.plans.iter().flat_map(|plan| &plan.exports).map(|export| export.name.as_str()).collect()
    }

    /// Where the sidecar listens for agents.
    pub(super) fn proxy(&self) -> Result<Destination, Failure> {
        let url = self.proxy.as_deref().unwrap_or_default();
        let authority = url.strip_prefix("http://").unwrap_or(url);
        Destination::parse(authority.trim_end_matches('/'), None)
            .map_err(|error| Failure::remote(format!("the sidecar listens at {}: {error}", print::visible(url))))
    }

    /// The directory of the CA files.
    pub(super) fn public(&self) -> PathBuf {
        self.place.public()
    }

    /// The directory of the shims.
    pub(super) fn shims(&self) -> PathBuf {
        self.place.shims()
    }

    /// From here on the nonces are renewed and refusals are told.
    pub(super) async fn attend(&mut self) {
        for held in &self.held {
            self.renewals.push(tokio::spawn(renewal::keep(self.client.clone(), held.clone(), self.voice)));
        }
        // A private sidecar has no other tasks; requests without a nonce of ours are told too.
        let (agent, task) = match &self.sidecar {
            Some(_) => (None, None),
            None => (Some(self.agent.as_str()), Some(self.task.as_str())),
        };
        match self.client.events(agent, task).await {
            Ok(events) => {
                let (end, over) = oneshot::channel();
                let told = Told::new(&self.held, self.voice);
                self.told = Some((tokio::spawn(told.follow(events, over)), end));
            }
            Err(error) => {
                self.voice.warn(format_args!("refusals are not told: {}", print::visible(&error.to_string())));
            }
        }
    }

    /// Waits for the end of the private sidecar, which nobody asked for.
    pub(super) async fn sidecar_ended(&mut self) {
        match &mut self.sidecar {
            Some(sidecar) => sidecar.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Revokes all nonces, tells the last refusals, stops the private sidecar, and removes the directory.
    pub(super) async fn close(mut self) {
        for renewal in &self.renewals {
            renewal.abort();
        }
        // The nonces of a private sidecar that is over are over with it.
        let is_over = self.sidecar.as_mut().is_some_and(Sidecar::is_over);
        if !is_over && timeout(REVOKE_MAX, revoke(&self.client, &self.held, self.voice)).await.is_err() {
            self.voice.warn("not all nonces of this run could be revoked in time");
        }
        if let Some((told, end)) = self.told.take() {
            drop(end);
            // A bug there is no reason to leave anything behind.
            if let Ok(told) = told.await {
                told.sum_up(self.audit.as_deref());
            }
        }
        if let Some(sidecar) = self.sidecar.take() {
            sidecar.stop().await;
        }
    }
}

impl Known {
    /// What a sidecar that runs says of its policy.
    fn learn(&mut self, list: ServiceList) {
        for service in list.services {
            let agents = service.scopes.into_iter().flat_map(|scope| scope.agents);
            for agent in agents.filter(|agent| agent != "*") {
                if !self.agents.contains(&agent) {
                    self.agents.push(agent);
                }
            }
            if !self.services.iter().any(|facts| facts.name == service.name) {
                self.services.push(ServiceFacts { name: service.name, hosts: service.hosts });
            }
        }
    }
}

/// The agent that was named, or the only one.
fn whose(named: Option<&str>, agents: &[String]) -> Result<String, Failure> {
    let mut shown: Vec<String> = agents.iter().map(|name| print::visible(name)).collect();
    shown.sort_unstable();
    let shown = if shown.is_empty() { "none is known here".to_owned() } else { shown.join(", ") };
    match (named, agents) {
        (Some(named), agents) if agents.iter().any(|agent| agent == named) => Ok(named.to_owned()),
        (Some(named), _) => Err(Failure::usage(format!(
            "--agent {}: there is no such agent; there are: {shown}",
            print::visible(named)
        ))),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(Failure::usage(format!("--agent NAME: say whose nonces these are: {shown}"))),
    }
}

async fn private(
    arguments: &Arguments,
    run: &str,
    place: &Place,
) -> Result<(Client, Option<Sidecar>, Option<PathBuf>), Failure> {
    let audit = match &arguments.audit {
        Some(path) if path.as_os_str() == "-" => {
            return Err(Failure::usage("--audit -: standard output is the command's; name a file"));
        }
        Some(path) => path.clone(),
        None => place::default_audit(run)?,
    };
    let mut flags: Vec<String> = arguments.connect_to.iter().map(|to| format!("--connect-to={to}")).collect();
    if arguments.allow_exec {
        flags.push("--allow-exec".to_owned());
    }
    let settings = Settings {
        policy: arguments.policy.as_deref().unwrap_or(Path::new(POLICY)),
        audit: &audit,
        public: place.public(),
        log_level: arguments.log_level.as_deref().unwrap_or(LOG_LEVEL),
        flags,
    };
    let (sidecar, client) = Sidecar::start(&settings, arguments.voice()).await?;
    Ok((client, Some(sidecar), Some(audit)))
}

/// Ends the nonces, all of them even if one cannot be ended.
async fn revoke(client: &Client, held: &[Held], voice: Voice) {
    for held in held {
        if let Err(error) = client.revoke(&held.id).await {
            let said = print::visible(&error.to_string());
            voice.warn(format_args!("{} (in {}) was not revoked: {said}", held.id, held.names));
        }
    }
}

fn ttl(text: &str) -> TtlAsked {
    text.parse().map_or_else(|_| TtlAsked::Text(text.to_owned()), TtlAsked::Seconds)
}

fn unreachable(error: ClientError, path: &Path) -> Failure {
    match error {
        ClientError::Connect { source, .. } => Failure::remote(format!(
            "cannot reach the sidecar at {}: {source}\n  --attach names the control socket of one that runs; \
             without it a private one is started",
            path.display()
        )),
        error @ (ClientError::Refused(_)
        | ClientError::Broken(_)
        | ClientError::Timeout
        | ClientError::Unintelligible(_)
        | ClientError::Unsendable(_)) => failed::say(error),
    }
}
