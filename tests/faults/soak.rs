//! stub
use crate::options::Options;
pub async fn run(_minutes: f64, _options: &Options) -> bool {
    false
}
