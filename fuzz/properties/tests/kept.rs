//! The kept inputs of `fuzz/corpus`, and changes of them, on stable: a short run of what `cargo xtask fuzz` does for long.
//! The changes are the same in every run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use properties::{ALL, Property};

/// Changes of kept inputs that are tried of each target.
const CHANGES: usize = 600;
/// No target takes longer on a slow machine; then fewer changes are tried.
const CHANGES_TIME_MAX: Duration = Duration::from_millis(1500);
/// Longest input, in bytes.
const INPUT_BYTES_MAX: usize = 1024;
/// Kept inputs of a target at most.
const INPUTS_MAX: usize = 300;
/// All kept inputs together, in bytes.
const CORPUS_BYTES_MAX: usize = 1024 * 1024;

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    audit authority authorization brotli certificate chunks control_json deflate envelopes frames gzip head path policy presigned
    scrubber token zstd
}

#[test]
fn each_property_has_its_target_and_its_inputs() {
    let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, TESTED);
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("fuzz/");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for name in &names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is no target");
        let target = std::fs::read_to_string(fuzz.join("fuzz_targets").join(name).with_extension("rs"));
        assert!(target.expect("a target").contains(&format!("properties::{name}(")), "{name} tries something else");
    }
    let bytes: usize = names.iter().flat_map(|name| kept(name)).map(|input| input.len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes are kept");
}

fn holds(name: &str) {
    let (_, property) = ALL.iter().find(|(known, _)| *known == name).expect("a property");
    let inputs = kept(name);
    assert!((3..=INPUTS_MAX).contains(&inputs.len()), "{} inputs are kept", inputs.len());
    for input in &inputs {
        assert!(input.len() <= INPUT_BYTES_MAX, "{} bytes are too many to keep", input.len());
        try_one(*property, input);
    }
    let (begun, mut dice) = (Instant::now(), Dice(0x9e37_79b9_7f4a_7c15));
    for _ in 0..CHANGES {
        if begun.elapsed() > CHANGES_TIME_MAX {
            break;
        }
        try_one(*property, &changed(&inputs, &mut dice));
    }
}

/// Says which input it was, so that it can be kept.
fn try_one(property: Property, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| property(input))).is_err() {
        panic!("does not hold for: {}", input.escape_ascii());
    }
}

/// In a fixed order.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

/// A kept input with one to four changes: a byte, a bit, a piece of another input, something out, something twice.
fn changed(inputs: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = inputs[dice.below(inputs.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(input.len() + 1);
        let end = (at + dice.below(16)).min(input.len());
        match dice.below(5) {
            0 if at < input.len() => input[at] = u8::try_from(dice.below(256)).unwrap_or(0),
            1 if at < input.len() => input[at] ^= 1 << dice.below(8),
            2 => {
                let other = &inputs[dice.below(inputs.len())];
                let from = dice.below(other.len() + 1);
                let piece = other[from..(from + dice.below(24)).min(other.len())].to_vec();
                input.splice(at..at, piece);
            }
            3 => drop(input.drain(at..end)),
            _ => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
        }
    }
    input
}

/// `xorshift64*`: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or(0) % bound.max(1)
    }
}
