//! Micro-benchmarks of the sidecar's own parts: `cargo bench --manifest-path benches/Cargo.toml --package micro`.
