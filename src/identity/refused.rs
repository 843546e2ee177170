//! Why a proof was refused.

/// Why a token or a certificate proves nothing. Says nothing of its content, which nobody vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `Authorization` is there twice, or is no `Bearer` with one token.
    #[error("`Authorization` must be there once, as `Bearer TOKEN`")]
    Authorization,
    /// A scanner's report names no key, or has no signature, or has one of them twice.
    #[error("the report is not signed as it has to be")]
    Unsigned,
    /// Longer than [`TOKEN_BYTES_MAX`](super::TOKEN_BYTES_MAX).
    #[error("the token is longer than 16384 bytes")]
    TooLong,
    /// Neither the token of a file nor a JWT.
    #[error("the token is not one that the policy knows")]
    Unknown,
    /// Not a JWS of three parts with strict JSON in it.
    #[error("the token is not a well-formed JWT")]
    Malformed,
    /// Its header asks for something that is not done here: `crit`, `jku`, `x5u`, an embedded key, another `typ`.
    #[error("the token's header asks for what is not done here")]
    Header,
    /// `none`, a shared secret, or an algorithm that its issuer does not have.
    #[error("the token's algorithm is not one of its issuer's")]
    Algorithm,
    /// No issuer of the policy.
    #[error("the token's issuer is not one of the policy's")]
    Issuer,
    /// Meant for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid yet")]
    NotYet,
    /// A claim that has to be there is not, or has another form.
    #[error("the token lacks the claim `{0}`, or it has another form")]
    Claim(&'static str),
    /// The issuer's keys have none of this name.
    #[error("the token's key is not one of its issuer's")]
    UnknownKey,
    /// The signature is not that key's.
    #[error("the token's signature is not valid")]
    Signature,
    /// A token of the pod that this sidecar runs in: its agent could have it.
    #[error("the token is of the sidecar's own pod, whose agent could have it too")]
    OwnPod,
    /// The API server does not vouch for it.
    #[error("the token was refused by the API server")]
    Review,
    /// A certificate that names nobody, or more than one; also one that could sign others.
    #[error("the certificate does not name one client, or could sign other certificates")]
    CertificateName,
    /// A certificate of nobody who may vouch for whom it names.
    #[error("the certificate is of no CA that the policy has for whom it names")]
    CertificateAuthority,
    /// A certificate whose time is over, or is yet to come; or that of one above it.
    #[error("the certificate has expired, or is not valid yet")]
    CertificateOver,
    /// A certificate that is for something else.
    #[error("the certificate is not for clients that sign their handshake")]
    CertificateUse,
    /// Somebody on this machine, where some users are agents, and no telling which user it is.
    #[error("the call comes from this machine, some of whose users are agents, and cannot be told from theirs")]
    User,
    /// The keys, or whoever would judge the token, cannot be had; nothing is believed without.
    #[error("the issuer's keys cannot be had just now")]
    Unavailable,
}

impl Refused {
    /// True where trying again may help.
    #[must_use]
    pub fn is_ours(self) -> bool {
        self == Self::Unavailable
    }
}
