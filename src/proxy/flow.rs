//! Bodies and bytes on their way: counted, bounded in idleness, cut when their lease is revoked, never buffered.
//!
//! - `inbound`, `want`, `upload`: the agent's body as it comes, whether upstream wants it, and as it goes upstream
//! - `entire`: a body whose end is believed only where it is one
//! - `carrier`: the library's tasks, of which a stuck upload is one
//! - `download`, `watch`: the answer on its way to the agent, and a look at those that nobody reads
//! - `pipe`: two streams of bytes, relayed unread
//! - `meter`, `alarms`: what they have in common

mod alarms;
mod carrier;
mod download;
mod entire;
mod inbound;
mod meter;
mod pipe;
mod upload;
mod want;
mod watch;

pub(super) use alarms::IdleAlarm;
pub(super) use carrier::{Carrier, in_turns};
pub use download::Body;
pub(super) use download::{Download, Flow, Source};
pub(super) use entire::Entire;
pub use inbound::{Inbound, Seen};
pub(super) use meter::Meter;
pub(super) use pipe::{Moved, relay};
pub(super) use upload::Upload;
pub use upload::UploadFault;
pub(super) use want::{Answering, Want, Wanted};
pub(super) use watch::Watch;
