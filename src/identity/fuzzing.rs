//! For the fuzz targets alone (`fuzz/properties`): tokens and key sets, read as the verifier reads them. Nothing in the
//! program calls it, so that none of it is in the binary.

use super::jwks::{KeySet, Use};
use super::jwt::Token;

/// True when a key of this set, named by the token, has signed it. Claims are not looked at.
#[must_use]
pub fn is_signed(token: &str, key_set: &[u8]) -> bool {
    let (Ok(token), Some(keys)) = (Token::parse(token), KeySet::parse(key_set, Use::Signatures)) else { return false };
    keys.find(&token.kid).is_some_and(|key| key.verifies(token.algorithm, token.signed, &token.signature))
}
