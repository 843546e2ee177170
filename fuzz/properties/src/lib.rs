//! What must hold for every input, a function each: it takes any bytes and panics where something does not hold.
//!
//! They lie here once, and are used twice: by `cargo fuzz` (`fuzz/fuzz_targets`), which needs a nightly compiler, and by
//! `tests/kept.rs` on stable, over the inputs that are kept in `fuzz/corpus` and changes of them.

mod audit;
mod authority;
mod authorization;
mod certificate;
mod chunks;
mod codings;
mod control_json;
mod cuts;
mod echo;
mod envelopes;
mod frames;
mod gzip;
mod head;
mod path;
mod policy;
mod presigned;
mod reading;
mod scrubber;
mod signing;
mod token;

pub use audit::audit;
pub use authority::authority;
pub use authorization::authorization;
pub use certificate::certificate;
pub use chunks::chunks;
pub use codings::{brotli, deflate, zstd};
pub use control_json::control_json;
pub use envelopes::envelopes;
pub use frames::frames;
pub use gzip::gzip;
pub use head::head;
pub use path::path;
pub use policy::policy;
pub use presigned::presigned;
pub use scrubber::scrubber;
pub use token::token;

/// A function that panics where something does not hold.
pub type Property = fn(&[u8]);

/// All of them, by the names of their targets and of their directories in `fuzz/corpus`.
pub const ALL: [(&str, Property); 18] = [
    ("audit", audit),
    ("authority", authority),
    ("authorization", authorization),
    ("brotli", brotli),
    ("certificate", certificate),
    ("chunks", chunks),
    ("control_json", control_json),
    ("deflate", deflate),
    ("envelopes", envelopes),
    ("frames", frames),
    ("gzip", gzip),
    ("head", head),
    ("path", path),
    ("policy", policy),
    ("presigned", presigned),
    ("scrubber", scrubber),
    ("token", token),
    ("zstd", zstd),
];
