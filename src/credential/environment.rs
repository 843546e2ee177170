//! `source = "env"`: a value that the process was started with.
//!
//! It cannot change, so there is nothing to load later: it is handed in once, after it was
//! taken out of the process environment.

use std::collections::HashMap;

use zeroize::Zeroizing;

use super::source::{Loaded, Problem};
use super::{Form, key_pair};
use crate::model::{Credential, Now};

/// Finds the value of the variable `name`.
///
/// # Errors
/// [`Problem::Unset`], or why it cannot be a credential. No line end is dropped here: a variable holds what was put into it.
pub(super) fn find(
    name: &str,
    environment: &HashMap<String, Zeroizing<String>>,
    (form, now): (Form, &Now),
) -> Result<Loaded, Problem> {
    let value = environment.get(name).ok_or(Problem::Unset)?;
    match form {
        Form::Text => {
            let credential = Credential::parse(Zeroizing::new(value.as_bytes().to_vec()))?;
            Ok(Loaded::text(credential, None))
        }
        Form::AwsKeyPair => key_pair::parse(value.as_bytes(), now),
    }
}
