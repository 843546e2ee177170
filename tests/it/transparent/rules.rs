//! The example rulesets.

use crate::support::Namespace;
use crate::support::namespace::can_redirect;

#[test]
fn the_example_rulesets_load_and_replace_themselves() {
    if !can_redirect() {
        return;
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["deploy/redirect.nft", "deploy/tproxy.nft"] {
        let namespace = Namespace::new();
        let path = root.join(file);
        let script =
            format!("nft -c -f {0}; nft -f {0}; nft -f {0}; test $(nft list tables | wc -l) = 1", path.display());
        namespace.shell(&script);
    }
}
