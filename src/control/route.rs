//! From method and path to a call.

use http::Method;

use super::refusal::Refusal;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call<'p> {
    Mint,
    List,
    Read(&'p str),
    Revoke(&'p str),
    Renew(&'p str),
    Delegate(&'p str),
    Introspect,
    Services,
    WhoAmI,
    Ready,
    Events,
    CaPem,
    OpenApi,
    Revocations,
    Complete(&'p str),
    Leaks,
    Explain,
    Risk,
}

impl<'p> Call<'p> {
    /// Finds the call; a path is exact, without a trailing slash.
    pub(super) fn route(method: &Method, path: &'p str) -> Result<Self, Refusal> {
        let segments: Vec<_> = path.split('/').skip(1).take(5).collect();
        let methods = match segments.as_slice() {
            ["v1", "nonces"] => Methods { get: Some(Self::List), post: Some(Self::Mint), delete: None },
            ["v1", "nonces", id] => Methods { get: Some(Self::Read(id)), post: None, delete: Some(Self::Revoke(id)) },
            ["v1", "nonces", id, "renew"] => Methods::post(Self::Renew(id)),
            ["v1", "nonces", id, "delegate"] => Methods::post(Self::Delegate(id)),
            ["v1", "tasks", task, "complete"] => Methods::post(Self::Complete(task)),
            ["v1", "revocations"] => Methods::post(Self::Revocations),
            ["v1", "leaks"] => Methods::post(Self::Leaks),
            ["v1", "explain"] => Methods::post(Self::Explain),
            ["v1", "risk"] => Methods::post(Self::Risk),
            ["v1", "events"] => Methods::get(Self::Events),
            ["v1", "introspect"] => Methods::post(Self::Introspect),
            ["v1", "services"] => Methods::get(Self::Services),
            ["v1", "whoami"] => Methods::get(Self::WhoAmI),
            ["v1", "ready"] => Methods::get(Self::Ready),
            ["ca.pem"] => Methods::get(Self::CaPem),
            ["openapi.json"] => Methods::get(Self::OpenApi),
            _ => return Err(Refusal::NotFound),
        };
        methods.choose(method)
    }

    /// Its name in the audit.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::List => "list",
            Self::Read(_) => "read",
            Self::Revoke(_) => "revoke",
            Self::Renew(_) => "renew",
            Self::Delegate(_) => "delegate",
            Self::Introspect => "introspect",
            Self::Services => "services",
            Self::WhoAmI => "whoami",
            Self::Ready => "ready",
            Self::Events => "events",
            Self::CaPem => "ca",
            Self::OpenApi => "openapi",
            Self::Revocations => "revocations",
            Self::Complete(_) => "complete",
            Self::Leaks => "leaks",
            Self::Explain => "explain",
            Self::Risk => "risk",
        }
    }
}

/// The methods of one path.
struct Methods<'p> {
    get: Option<Call<'p>>,
    post: Option<Call<'p>>,
    delete: Option<Call<'p>>,
}

impl<'p> Methods<'p> {
    fn get(call: Call<'p>) -> Self {
        Self { get: Some(call), post: None, delete: None }
    }

    fn post(call: Call<'p>) -> Self {
        Self { get: None, post: Some(call), delete: None }
    }

    fn choose(&self, method: &Method) -> Result<Call<'p>, Refusal> {
        let call = match *method {
            Method::GET | Method::HEAD => self.get,
            Method::POST => self.post,
            Method::DELETE => self.delete,
            _ => None,
        };
        call.ok_or(Refusal::MethodNotAllowed(self.allowed()))
    }

    fn allowed(&self) -> &'static str {
        match (self.get.is_some(), self.post.is_some(), self.delete.is_some()) {
            (true, true, _) => "GET, HEAD, POST",
            (true, false, true) => "GET, HEAD, DELETE",
            (true, false, false) => "GET, HEAD",
            (false, true, _) => "POST",
            (false, false, _) => "DELETE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, path: &'static str) -> Result<Call<'static>, Refusal> {
        Call::route(&Method::from_bytes(method.as_bytes()).unwrap(), path)
    }

    #[test]
    fn paths_are_exact() {
        assert_eq!(route("POST", "/v1/nonces"), Ok(Call::Mint));
        assert_eq!(route("HEAD", "/v1/nonces"), Ok(Call::List));
        assert_eq!(route("POST", "/v1/nonces/nc_x/renew"), Ok(Call::Renew("nc_x")));
        assert_eq!(route("POST", "/v1/nonces/nc_x/delegate"), Ok(Call::Delegate("nc_x")));
        assert_eq!(route("DELETE", "/v1/nonces/nc_x"), Ok(Call::Revoke("nc_x")));
        assert_eq!(route("POST", "/v1/tasks/a%2Fb/complete"), Ok(Call::Complete("a%2Fb")));
        assert_eq!(route("POST", "/v1/tasks/a/b/complete"), Err(Refusal::NotFound));
        for path in ["/", "/v1", "/v2/nonces", "/V1/nonces", "//v1/nonces", "/v1/whoami/", "/v1/services/stripe", "*"] {
            assert_eq!(route("GET", path), Err(Refusal::NotFound), "{path}");
        }
        assert_eq!(route("GET", "/v1/nonces/a/b/c/d/e/f"), Err(Refusal::NotFound));
    }

    #[test]
    fn methods_are_named() {
        assert_eq!(route("PUT", "/v1/nonces"), Err(Refusal::MethodNotAllowed("GET, HEAD, POST")));
        assert_eq!(route("POST", "/v1/nonces/nc_x"), Err(Refusal::MethodNotAllowed("GET, HEAD, DELETE")));
        assert_eq!(route("GET", "/v1/introspect"), Err(Refusal::MethodNotAllowed("POST")));
        assert_eq!(route("TRACE", "/ca.pem"), Err(Refusal::MethodNotAllowed("GET, HEAD")));
    }
}
