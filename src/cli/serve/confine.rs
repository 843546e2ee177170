//! What the sidecar may open once it serves, and a policy that asks for more.

use std::path::{Path, PathBuf};

use super::Arguments;
use crate::cli::Failure;
use crate::config::{self, Loaded};
use crate::identity::ScannerKeys;
use crate::process::{Confinement, Effort, Locked, Places, confine, lock_memory};
use crate::roots::{self, System};

/// What a policy needs, kept from before it was taken apart.
pub(super) struct Needs {
    files: Vec<PathBuf>,
    runs_commands: bool,
}

impl Needs {
    pub(super) fn of(loaded: &Loaded) -> Self {
        Self { files: config::read_files(loaded), runs_commands: config::runs_commands(loaded) }
    }

    /// Shuts this process off from all else; to be called once everything is bound, and while there is one thread.
    pub(super) fn confine(&self, arguments: &Arguments, system: &System) -> Result<Confinement, Failure> {
        let confinement = if self.runs_commands {
            Confinement::with_commands(arguments.protection.landlock)
        } else {
            let places = self.places(arguments, system);
            confine(&places, arguments.protection.landlock).inspect(|confinement| warn_of_missing(&places, confinement))
        };
        let confinement =
            confinement.map_err(|error| Failure::other(format!("--landlock required cannot be had: {error}")))?;
        if confinement.is_as_meant() {
            tracing::info!(landlock = confinement.word(), "{confinement}");
        } else {
            tracing::warn!(landlock = confinement.word(), "{confinement}");
        }
        Ok(confinement)
    }

    fn places(&self, arguments: &Arguments, system: &System) -> Places {
        let mut places = Places::default();
        places.read(&arguments.policy);
        self.files.iter().for_each(|path| places.read(path));
        // The system's roots are read again with each policy, from wherever the links of a distribution lead.
        for place in roots::places().iter().filter(|place| place.exists()) {
            places.read(place);
        }
        places.read_alone(&system.linked);
        if let Some(ScannerKeys::File(path)) = &arguments.reports.leaks_github_keys {
            places.read(path);
        }
        // Read again whenever they change.
        let (outer, remote, reports) = (&arguments.outer, &arguments.remote, &arguments.reports);
        let certificates = [&outer.listen_tls_cert, &remote.control_tls_cert, &reports.leaks_tls_cert];
        let keys = [&outer.listen_tls_key, &remote.control_tls_key, &reports.leaks_tls_key];
        let tls = certificates.into_iter().chain(keys).chain([&remote.control_client_ca]);
        tls.flatten().for_each(|path| places.read(path));
        arguments.reports.leaks_github_ca.iter().for_each(|path| places.read(path));
        if arguments.audit.as_os_str() != "-" {
            places.write(&arguments.audit);
        }
        arguments.ca_publish.iter().chain(&arguments.ready_file).for_each(|path| places.write(path));
        if !arguments.supervised {
            places.remove(control_directory(&arguments.control));
        }
        places
    }

    /// Refuses a policy that needs what this process has shut itself off from.
    pub(super) fn review(&self, confinement: &Confinement) -> Result<(), String> {
        if self.runs_commands && !confinement.lets_commands_run() {
            return Err(RESTART_FOR_COMMANDS.to_owned());
        }
        self.files.iter().try_for_each(|path| review(path, confinement))
    }
}

const RESTART_FOR_COMMANDS: &str = "its credentials come from commands, and this process has shut itself off from \
     starting any (Landlock): restart to take it";

/// Refuses a file that this process has shut itself off from.
pub(super) fn review(path: &Path, confinement: &Confinement) -> Result<(), String> {
    if confinement.lets_read(path) {
        return Ok(());
    }
    Err(format!(
        "{} is in no directory that was known at the start, and this process has shut itself off from all others \
         (Landlock): restart to take it",
        path.display()
    ))
}

/// The socket is not a file: it stands for itself, and it is from its directory that it is removed.
fn control_directory(socket: &Path) -> &Path {
    socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn warn_of_missing(places: &Places, confinement: &Confinement) {
    if !confinement.lets_commands_run() {
        for path in places.missing() {
            tracing::warn!("{} cannot be opened before a restart: its directory is not there", path.display());
        }
    }
}

/// Flags of what the process does for its own protection.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Protection")]
pub struct ProtectionArguments {
    /// Confine the process to the files that it needs (Landlock); required does not start where that cannot be had.
    #[arg(long, env = "VALETKEY_LANDLOCK", value_enum, value_name = "HOW", default_value_t = Effort::BestEffort)]
    pub landlock: Effort,

    /// Keep all memory out of swap; required does not start where that cannot be had.
    #[arg(long, env = "VALETKEY_LOCK_MEMORY", value_enum, value_name = "HOW", default_value_t = Effort::BestEffort)]
    pub lock_memory: Effort,
}

impl ProtectionArguments {
    /// Keeps all memory out of swap, and says what came of it.
    pub(super) fn lock_memory(&self) -> Result<Locked, Failure> {
        let locked = lock_memory(self.lock_memory)
            .map_err(|error| Failure::other(format!("--lock-memory required cannot be had: {error}")))?;
        // No warning: most desktops do not allow it, and each start would have one.
        tracing::info!(memory = locked.word(), "{locked}");
        Ok(locked)
    }
}
