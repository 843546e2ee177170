//! Secrets leave the environment.
//!
//! What a process was started with stays readable in `/proc/PID/environ` for its whole life, whatever
//! it unsets, and what it leaves set goes to each of its children. So the program starts itself over:
//! the same process id and arguments, an environment without the secrets, and these in sealed memory as
//! its standard input. The second time it reads them, wipes that memory, and closes it.
//!
//! Between the two starts, and before [`super::harden`] has run again, another process of the same
//! user could still look: nothing can be done about that from inside.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::ProcessError;

/// Set for the second start, to the process id. With another id it was inherited, and means nothing.
pub const REEXEC_VARIABLE: &str = "VALETKEY_REEXEC";
/// Most bytes of names and values together; the kernel's own limit on an environment is near it.
pub const HANDED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The values of the variables in `names` that are set, taken out of the environment.
///
/// To be called before any thread exists. If one of them is set, this **does not return** but starts the
/// program over; the second time it returns them. After that the standard input is at its end. A value that
/// is not UTF-8 comes with replacement characters in it, which no credential can hold.
///
/// # Errors
/// [`ProcessError`]; then the program should end.
#[cfg(target_os = "linux")]
pub fn take_environment(names: &[String]) -> Result<HashMap<String, Zeroizing<String>>, ProcessError> {
    let mut values = if linux::is_second_start() { linux::receive()? } else { HashMap::new() };
    let found = find(names);
    if found.is_empty() {
        return Ok(values);
    }
    // At the second start there is something only if other names are asked for than at the first. Each start
    // takes out at least one, so that this ends.
    if found.keys().any(|name| values.contains_key(name)) {
        return Err(ProcessError::Forged);
    }
    values.extend(found);
    Err(linux::start_over(&values))
}

/// The values of the variables in `names` that are set; they cannot be taken out of the environment here.
///
/// # Errors
/// [`ProcessError::Unsupported`] if one is set.
#[cfg(not(target_os = "linux"))]
pub fn take_environment(names: &[String]) -> Result<HashMap<String, Zeroizing<String>>, ProcessError> {
    if find(names).is_empty() { Ok(HashMap::new()) } else { Err(ProcessError::Unsupported) }
}

fn find(names: &[String]) -> HashMap<String, Zeroizing<String>> {
    let possible = |name: &&String| !name.is_empty() && !name.contains(['=', '\0']);
    let value = |name: &String| {
        let value = std::env::var_os(name)?;
        let text = value.into_string().unwrap_or_else(|raw| raw.to_string_lossy().into_owned());
        Some((name.clone(), Zeroizing::new(text)))
    };
    names.iter().filter(possible).filter_map(value).collect()
}

/// `NAME=VALUE`, each ended by a NUL, as the kernel writes an environment.
#[cfg(target_os = "linux")]
fn encode(values: &HashMap<String, Zeroizing<String>>) -> Zeroizing<Vec<u8>> {
    let bytes_count = values.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    // Allocated once: a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_count));
    for (name, value) in values {
        for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

#[cfg(target_os = "linux")]
fn decode(bytes: &[u8]) -> Option<HashMap<String, Zeroizing<String>>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let pair = |entry: &str| {
        let (name, value) = entry.strip_suffix('\0')?.split_once('=')?;
        Some((name.to_owned(), Zeroizing::new(value.to_owned())))
    };
    text.split_inclusive('\0').map(pair).collect()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
    use rustix::io::Errno;
    use zeroize::Zeroizing;

    use super::{HANDED_BYTES_MAX, REEXEC_VARIABLE, decode, encode};
    use crate::process::{ProcessError, io_kind};

    /// Nobody can write to it, add to it, or take the seals off. It can be shortened, since that is how it is wiped.
    const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SEAL);

    pub(super) fn is_second_start() -> bool {
        std::env::var(REEXEC_VARIABLE).is_ok_and(|id| id == std::process::id().to_string())
    }

    /// Hands `values` over and starts the program again; returns only if that failed.
    pub(super) fn start_over(values: &HashMap<String, Zeroizing<String>>) -> ProcessError {
        let memory = match seal(&encode(values)) {
            Ok(memory) => memory,
            Err(error) => return error,
        };
        let mut arguments = std::env::args_os();
        let program = arguments.next().unwrap_or_else(|| OsString::from("valetkey"));
        let mut command = Command::new("/proc/self/exe");
        for name in values.keys() {
            command.env_remove(name);
        }
        command.arg0(program).args(arguments).env(REEXEC_VARIABLE, std::process::id().to_string()).stdin(memory);
        ProcessError::Restart(command.exec().kind())
    }

    fn seal(bytes: &[u8]) -> Result<File, ProcessError> {
        if u64::try_from(bytes.len()).is_ok_and(|count| count > HANDED_BYTES_MAX) {
            return Err(ProcessError::TooLarge);
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know NOEXEC_SEAL, and some later ones insist on it.
        let descriptor = match memfd_create("valetkey", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create("valetkey", flags),
            other => other,
        };
        let mut memory = File::from(descriptor.map_err(|e| ProcessError::Memory(io_kind(e)))?);
        memory.write_all(bytes).and_then(|()| memory.rewind()).map_err(|e| ProcessError::Memory(e.kind()))?;
        fcntl_add_seals(&memory, SEALS).map_err(|e| ProcessError::Memory(io_kind(e)))?;
        Ok(memory)
    }

    /// Reads what the first start handed over, wipes it, and ends the standard input.
    pub(super) fn receive() -> Result<HashMap<String, Zeroizing<String>>, ProcessError> {
        // Not through std's stdin, whose buffer would keep the secrets.
        let descriptor = rustix::stdio::stdin().try_clone_to_owned().map_err(|_| ProcessError::Forged)?;
        let mut memory = File::from(descriptor);
        let bytes_count = handed_bytes_count(&memory).ok_or(ProcessError::Forged)?;
        let mut bytes = Zeroizing::new(vec![0; bytes_count]);
        memory.read_exact(&mut bytes).map_err(|e| ProcessError::Memory(e.kind()))?;
        memory.set_len(0).map_err(|e| ProcessError::Memory(e.kind()))?;
        let nothing = File::open("/dev/null").map_err(|e| ProcessError::Memory(e.kind()))?;
        rustix::stdio::dup2_stdin(&nothing).map_err(|e| ProcessError::Memory(io_kind(e)))?;
        restore_name();
        decode(&bytes).ok_or(ProcessError::Forged)
    }

    /// How much was handed over, if this is memory that was sealed as we do it: a terminal or a pipe would be waited for.
    fn handed_bytes_count(memory: &File) -> Option<usize> {
        let status = fstat(memory).ok()?;
        let sealed = fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(SEALS));
        let size = u64::try_from(status.st_size).ok()?;
        let ours = sealed && status.st_nlink == 0 && size <= HANDED_BYTES_MAX;
        if ours { usize::try_from(size).ok() } else { None }
    }

    /// The kernel names a process after the file that was started, which was `exe`. A nicety: failure changes nothing.
    fn restore_name() {
        let program = std::env::args_os().next();
        let name = program.as_deref().and_then(|program| Path::new(program).file_name());
        // The first thread's own file: a process that is not dumpable may write that one, but not /proc/self/comm.
        let path = format!("/proc/self/task/{}/comm", std::process::id());
        let _ = std::fs::write(path, name.map_or(&b"valetkey"[..], OsStrExt::as_bytes));
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn sealed_memory_can_be_wiped_and_nothing_else() {
            let mut memory = seal(b"A=1\0").unwrap();
            assert_eq!(handed_bytes_count(&memory), Some(4));
            assert!(memory.write_all(b"B=2\0").is_err());
            assert!(memory.set_len(8).is_err());
            memory.set_len(0).unwrap();
            assert_eq!(handed_bytes_count(&memory), Some(0));
        }

        #[test]
        fn other_files_are_not_taken_for_ours() {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"A=1\0").unwrap();
            assert_eq!(handed_bytes_count(&file), None, "it has no name, as sealed memory has none");
            assert_eq!(handed_bytes_count(&File::open("/dev/null").unwrap()), None);
            let unsealed = File::from(memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap());
            assert_eq!(handed_bytes_count(&unsealed), None);
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_as_they_were() {
        let values = [("A", "x=y\n"), ("B", ""), ("C", "\u{fffd}")];
        let values: HashMap<_, _> =
            values.into_iter().map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned()))).collect();
        assert_eq!(decode(&encode(&values)), Some(values));
        assert_eq!(decode(b""), Some(HashMap::new()));
        for damaged in [&b"A=1"[..], b"A\0", b"A=\xff\0"] {
            assert_eq!(decode(damaged), None);
        }
    }
}
