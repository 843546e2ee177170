//! Asking the API server of a cluster what it says of a token (TokenReview, `authentication.k8s.io/v1`).

use std::path::PathBuf;

use http::HeaderValue;

use super::Refused;
use super::fetch::{Address, Client, Post};
use super::files;
use crate::json::Json;

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 128 * 1024;
/// Longest token of our own, in bytes.
const OWN_TOKEN_BYTES_MAX: usize = 16 * 1024;
/// What the API server calls the uid of the pod that a token is bound to.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// An API server, and who we are to it.
pub(super) struct Review {
    pub(super) client: Client,
    pub(super) address: Address,
    pub(super) token: PathBuf,
}

impl Review {
    /// Fine when the API server says that this token is of `subject`, for this audience, and not of our own pod.
    pub(super) async fn ask(
        &self,
        token: &str,
        audience: &str,
        subject: &str,
        own_pod: Option<&str>,
    ) -> Result<(), Refused> {
        let unavailable = |problem: &str| {
            tracing::warn!(server = %self.address, problem, "the API server cannot be asked about a token");
            Refused::Unavailable
        };
        // Read at every use: the kubelet renews it.
        let path = self.token.clone();
        let reading = tokio::task::spawn_blocking(move || files::read_public(&path, OWN_TOKEN_BYTES_MAX));
        let own = reading.await.map_err(|_| unavailable("reading was broken off"))?;
        let own = own.map_err(|problem| unavailable(&format!("our own token: {problem}")))?;
        let authorization = [b"Bearer ", own.trim_ascii()].concat();
        let mut authorization =
            HeaderValue::from_bytes(&authorization).map_err(|_| unavailable("our own token is no token"))?;
        authorization.set_sensitive(true);
        let json = serde_json::json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [audience] },
        });
        let post = Post { authorization, json: json.to_string() };
        let answer = self.client.ask(&self.address, Some(post), ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|problem| unavailable(&problem))?;
        judge(&answer, audience, subject, own_pod).ok_or_else(|| unavailable("the answer is no TokenReview"))?
    }
}

/// `None` where the answer is no review.
fn judge(answer: &[u8], audience: &str, subject: &str, own_pod: Option<&str>) -> Option<Result<(), Refused>> {
    let review = Json::parse_object(answer)?;
    let status = review.get("status")?.object()?;
    if status.get("authenticated") != Some(&Json::Bool(true)) {
        return Some(Err(Refused::Review));
    }
    // A server that knows nothing of audiences says nothing of them, and has judged the token for itself.
    let audiences = status.get("audiences").and_then(Json::array).unwrap_or_default();
    if !audiences.iter().any(|one| one.text() == Some(audience)) {
        return Some(Err(Refused::Audience));
    }
    let user = status.get("user")?.object()?;
    if user.get("username")?.text()? != subject {
        return Some(Err(Refused::Review));
    }
    let pods = user.get("extra").and_then(Json::object).and_then(|extra| extra.get(POD_UID)).and_then(Json::array);
    let is_own = |pod: &Json| own_pod.is_some() && pod.text() == own_pod;
    if pods.unwrap_or_default().iter().any(is_own) {
        return Some(Err(Refused::OwnPod));
    }
    Some(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_yes_is_one() {
        let of = |status: &str| {
            let answer = format!(r#"{{"kind":"TokenReview","status":{status}}}"#);
            judge(answer.as_bytes(), "us", "system:serviceaccount:a:b", Some("pod-1"))
        };
        let user = r#""user":{"username":"system:serviceaccount:a:b"}"#;
        let good = format!(r#"{{"authenticated":true,"audiences":["us"],{user}}}"#);
        assert_eq!(of(&good), Some(Ok(())));
        let no = |text: String, why| assert_eq!(of(&text), Some(Err(why)), "{text}");
        no(format!(r#"{{"authenticated":false,"audiences":["us"],{user}}}"#), Refused::Review);
        no(format!(r#"{{"authenticated":"true","audiences":["us"],{user}}}"#), Refused::Review);
        no(format!(r#"{{"audiences":["us"],{user}}}"#), Refused::Review);
        no(format!(r#"{{"authenticated":true,"audiences":["them"],{user}}}"#), Refused::Audience);
        no(format!(r#"{{"authenticated":true,{user}}}"#), Refused::Audience);
        no(good.replace(":b\"", ":c\""), Refused::Review);
        let extra = format!(r#","extra":{{"{POD_UID}":["pod-1"]}}}}}}"#);
        no(good.replace("}}", &extra), Refused::OwnPod);
        assert_eq!(of(r#"{"authenticated":true,"audiences":["us"]}"#), None);
        assert_eq!(of("7"), None);
    }
}
