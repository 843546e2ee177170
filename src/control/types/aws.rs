//! What an AWS SDK signs with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PlainNonce;

/// A key pair that stands in for a real one: it opens nothing but through the sidecar, and ends with its nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AwsKeys {
    /// `AWS_ACCESS_KEY_ID`
    #[schema(example = "ASIAQ3T7ZK2MXWV5LJ4B")]
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`
    #[schema(value_type = String)]
    pub secret_access_key: PlainNonce,
    /// `AWS_SESSION_TOKEN`: the nonce.
    #[schema(value_type = String, example = "an_4xK9mP…")]
    pub session_token: PlainNonce,
}
