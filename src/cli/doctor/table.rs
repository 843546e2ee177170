//! What is printed: a row for each client.

use serde::Serialize;

use super::clients::Client;
use super::print;

/// What was found out about one client; also its JSON form.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    client: &'static str,
    version: String,
    /// It went through the proxy; `null` where nothing was seen within the time.
    proxy: Option<bool>,
    /// It trusts the CA; `null` where it did not come so far.
    ca: Option<bool>,
    fix: Option<&'static str>,
}

impl Finding {
    pub(super) fn new(client: &Client, version: String, proxy: Option<bool>, ca: Option<bool>) -> Self {
        let fix = match (proxy, ca) {
            (Some(true), Some(true)) => None,
            (Some(true), Some(false)) => Some(client.to_trust),
            (Some(false), _) => Some(client.to_proxy),
            (None, _) | (_, None) => Some("it did not say: try it by hand, or again with a longer --timeout"),
        };
        Self { client: client.name, version, proxy, ca, fix }
    }

    /// It needs nothing.
    pub(super) fn works(&self) -> bool {
        self.fix.is_none()
    }
}

/// The findings for people.
pub(super) fn render(findings: &[Finding]) -> String {
    let said = |answer: Option<bool>| answer.map_or("?", |is| if is { "yes" } else { "NO" }).to_owned();
    let mut table = print::Table::new(&["CLIENT", "VERSION", "PROXY", "CA", "FIX"]);
    for finding in findings {
        let fix = finding.fix.unwrap_or("-");
        table.row(&[
            finding.client.to_owned(),
            finding.version.clone(),
            said(finding.proxy),
            said(finding.ca),
            fix.to_owned(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::clients::CLIENTS;

    #[test]
    fn the_fix_is_for_what_is_missing_first() {
        let of = |proxy, ca| Finding::new(&CLIENTS[0], "1".to_owned(), proxy, ca);
        assert!(of(Some(true), Some(true)).works());
        assert_eq!(of(Some(true), Some(false)).fix, Some(CLIENTS[0].to_trust));
        assert_eq!(of(Some(false), None).fix, Some(CLIENTS[0].to_proxy));
        assert!(of(None, None).fix.is_some_and(|fix| fix.contains("--timeout")));
        let shown = render(&[of(Some(false), None)]);
        let shown = anstream::adapter::strip_str(&shown).to_string();
        assert!(shown.contains("NO") && shown.contains('?'), "{shown}");
    }
}
