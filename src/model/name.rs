//! Names that people give: agents, tasks, minters, services, scopes, credentials.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::compact::Compact;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("is empty")]
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("is longer than 128 bytes")]
    TooLong,
    /// The name holds something other than ASCII letters, digits and `-_.:@/+*`.
    #[error("may hold only ASCII letters, digits and - _ . : @ / + *")]
    Character,
}

fn check(name: &str) -> Result<(), NameError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@/+*".contains(&b);
    match name.len() {
        0 => Err(NameError::Empty),
        n if n > NAME_BYTES_MAX => Err(NameError::TooLong),
        _ if !name.bytes().all(allowed) => Err(NameError::Character),
        _ => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident($kept:ty)) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name($kept);

        impl $name {
            /// Parses a name: 1 to 128 bytes of ASCII letters, digits and `-_.:@/+*`.
            ///
            /// # Errors
            /// [`NameError`] says which of these does not hold.
            pub fn parse(name: &str) -> Result<Self, NameError> {
                check(name).map(|()| Self(name.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::parse(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                (*name.0).to_owned()
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// Who may present a nonce, as the policy names it: `billing`.
    AgentName(Arc<str>)
);
name_type!(
    /// What a nonce is for, as the minter names it: `refund-4711`. Few leases have it in common: short ones are kept in
    /// place.
    TaskName(Compact)
);
name_type!(
    /// Who may ask for nonces: `orchestrator`.
    MinterName(Arc<str>)
);
name_type!(
    /// An API that the policy describes: `stripe`.
    ServiceName(Arc<str>)
);
name_type!(
    /// A named set of rules of one service: `read:customers`.
    ScopeName(Arc<str>)
);
name_type!(
    /// A real secret, by the name that the policy gives it. Never its value.
    CredentialName(Arc<str>)
);
name_type!(
    /// A level of risk that the policy names: `elevated`.
    LevelName(Arc<str>)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert!(AgentName::parse("billing-7").is_ok());
        assert!(ScopeName::parse("read:customers").is_ok());
        assert_eq!(AgentName::parse(""), Err(NameError::Empty));
        assert_eq!(AgentName::parse("a\nb"), Err(NameError::Character));
        assert_eq!(AgentName::parse("a\"b"), Err(NameError::Character));
        assert_eq!(AgentName::parse(&"a".repeat(129)), Err(NameError::TooLong));
    }
}
