//! The words of the product: plain types without I/O, clock or async.
//!
//! Everything that comes from outside is parsed here, once, into a type that
//! cannot hold a bad value; the rest of the program passes these types on.

pub mod agent;
mod compact;
pub mod denial;
pub mod destination;
pub mod grant;
pub mod key_pair;
pub mod lineage;
pub mod name;
pub mod nonce;
pub mod rate;
pub mod scope;
pub mod secret;
pub mod table;
pub mod time;
mod unseen;

pub use agent::{Identity, IdentityRule, Subject};
pub use denial::{Ambiguity, Denial, Fault};
pub use destination::{Destination, Host, Scheme};
pub use grant::{Grant, LeaseGrant, ScopeLimits};
pub use lineage::Lineage;
pub use name::{AgentName, CredentialName, LevelName, MinterName, ScopeName, ServiceName, TaskName};
pub use nonce::{Nonce, NonceHash, NonceId};
pub use rate::{Budget, Rate, RuleRate};
pub use scope::{Risk, RiskCap};
pub use secret::Credential;
pub use table::Table;
pub use time::{Deadline, Now};
pub use unseen::is_unseen;
