//! Structured logs by `tracing`: readable on a terminal, JSON elsewhere.

/// Sets logging up for the whole process.
pub fn init() {
    todo!()
}
