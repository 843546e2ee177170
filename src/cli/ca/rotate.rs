//! `valetkey ca rotate`: another CA, with a time in which clients trust both.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::{PUBLISHED, Shown, read, unusable};
use crate::authority::{Authority, Home};
use crate::cli::{Failure, print};
use crate::clock::{SharedClock, SystemClock};

/// Flags of `valetkey ca rotate`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Let the new CA sign: once every client has read ca.pem with both. Restart the sidecars then.
    #[arg(long)]
    finish: bool,
    /// Also write ca.pem, ca-bundle.pem and truststore.p12 with both CAs into this directory.
    #[arg(
        long,
        env = "VALETKEY_CA_PUBLISH",
        value_name = "DIR",
        value_hint = ValueHint::DirPath
    )]
    ca_publish: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, directory: &Path) -> Result<(), Failure> {
        // Says where to look for one, if there is none.
        read(directory)?;
        let clock: SharedClock = std::sync::Arc::new(SystemClock);
        if self.finish { self.finish(directory, &clock) } else { self.prepare(directory, clock) }
    }

    fn prepare(&self, directory: &Path, clock: SharedClock) -> Result<(), Failure> {
        Authority::prepare_next(directory, &clock).map_err(|error| unusable(&error))?;
        if let Some(publish) = &self.ca_publish {
            let authority = Authority::open(&Home::Directory(directory.to_owned()), clock);
            authority.and_then(|authority| authority.publish(publish)).map_err(|error| unusable(&error))?;
        }
        let mut shown = Shown::of_both(&read(directory)?, directory);
        shown.published = self.ca_publish.as_ref().map(|publish| PUBLISHED.map(|name| publish.join(name)));
        self.print(&shown, "another CA stands ready; hand ca.pem, which now holds both, to every client, then --finish")
    }

    fn finish(&self, directory: &Path, clock: &SharedClock) -> Result<(), Failure> {
        Authority::adopt_next(directory, clock).map_err(|error| unusable(&error))?;
        // What is published stays as it is: a sidecar that runs signs with the old one until it is restarted.
        let shown = Shown::of_both(&read(directory)?, directory);
        self.print(&shown, "the new CA signs from the next start of a sidecar on, which also publishes it alone")
    }

    fn print(&self, shown: &Shown, headline: &str) -> Result<(), Failure> {
        if self.json { print::json(shown) } else { print::text(&format!("{headline}\n{}", shown.render())) }
    }
}
