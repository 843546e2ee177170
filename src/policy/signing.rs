//! For which service and regions of AWS a signature at a host may be.

use crate::model::Host;

/// What a service says of it (`aws`); where it says nothing, its hosts' names do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// The service's name in a scope: `s3`, `dynamodb`.
    pub service: String,
    /// The regions; never none.
    pub regions: Vec<String>,
}

/// Under which names AWS serves its APIs.
const DOMAINS: [&str; 4] = ["amazonaws.com", "amazonaws.com.cn", "api.aws", "amazonaws.eu"];

/// Services whose hosts have another name than their scope : those that agents call most. `aws` in the policy names any other.
const OTHER_NAMES: [(&str, &str); 5] = [
    ("email", "ses"),
    ("queue", "sqs"),
    ("bedrock-runtime", "bedrock"),
    ("bedrock-agent", "bedrock"),
    ("bedrock-agent-runtime", "bedrock"),
];

/// True for a host whose name says of which service and region it is.
#[must_use]
pub fn is_of_aws(host: &str) -> bool {
    labels(host).is_some()
}

/// The labels before AWS's own domain; `None` where it is none of AWS's.
fn labels(host: &str) -> Option<Vec<&str>> {
    let rest = DOMAINS.iter().find_map(|domain| host.strip_suffix(domain)?.strip_suffix('.'))?;
    Some(rest.split('.').collect())
}

/// True where a signature for this region and service can be meant for this host.
///
/// Of a host of AWS the last label that is no region has to name the service, and the last that is one the region, if
/// there is one: what stands before them may be a bucket's name. Any other host has no name to go by: without `aws` in
/// its service nothing is signed for it.
#[must_use]
pub fn is_meant_for(said: Option<&Signing>, host: &Host, (region, service): (&str, &str)) -> bool {
    if let Some(said) = said {
        return said.service == service && said.regions.iter().any(|known| known == region);
    }
    let Some(labels) = labels(host.as_str()) else { return false };
    let is_of_service = |label: &&str| {
        let plain = label.strip_suffix("-fips").unwrap_or(label);
        plain == service || (service == "s3" && is_of_s3(plain)) || OTHER_NAMES.contains(&(plain, service))
    };
    let is_there = labels.iter().rfind(|label| is_region(label)).is_none_or(|last| *last == region);
    let named = labels.iter().rfind(|label| !is_region(label) && **label != "dualstack");
    is_there && named.is_some_and(is_of_service)
}

/// `s3-accelerate`, and `s3-eu-west-1` of old.
fn is_of_s3(label: &str) -> bool {
    label == "s3-accelerate" || label.strip_prefix("s3-").is_some_and(is_region)
}

/// `eu-west-1`, `us-gov-east-1`.
fn is_region(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let is_word = |word: &&str| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase());
    match words.split_last() {
        Some((number, names)) => {
            (2..=3).contains(&names.len())
                && names.iter().all(is_word)
                && names[0].len() <= 4
                && number.len() == 1
                && number.bytes().all(|b| b.is_ascii_digit())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(host: &str, region: &str, service: &str) -> bool {
        is_meant_for(None, &Host::parse(host).unwrap(), (region, service))
    }

    #[test]
    fn a_host_of_aws_says_what_is_signed_for_it() {
        for (host, region, service) in [
            ("sts.amazonaws.com", "us-east-1", "sts"),
            ("sts.eu-west-1.amazonaws.com", "eu-west-1", "sts"),
            ("s3.amazonaws.com", "us-east-1", "s3"),
            ("bucket.s3.eu-west-1.amazonaws.com", "eu-west-1", "s3"),
            ("bucket.s3.dualstack.eu-west-1.amazonaws.com", "eu-west-1", "s3"),
            ("bucket.s3-accelerate.amazonaws.com", "eu-west-1", "s3"),
            ("dynamodb-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1", "dynamodb"),
            ("bedrock-runtime.us-west-2.amazonaws.com", "us-west-2", "bedrock"),
            ("api.ecr.eu-west-1.amazonaws.com", "eu-west-1", "ecr"),
            ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1", "sqs"),
            ("s3-eu-west-1.amazonaws.com", "eu-west-1", "s3"),
            // What looks like a region and is none names the service.
            ("a-b2-1.eu-west-1.amazonaws.com", "eu-west-1", "a-b2-1"),
            ("eu-west-12.amazonaws.com", "eu-west-1", "eu-west-12"),
            ("eu-west-x.eu-west-1.amazonaws.com", "eu-west-1", "eu-west-x"),
            ("hosts-west-1.eu-west-1.amazonaws.com", "eu-west-1", "hosts-west-1"),
            ("db-1.eu-west-1.amazonaws.com", "eu-west-1", "db-1"),
            ("us-iso-b-east-1.eu-west-1.amazonaws.com", "eu-west-1", "us-iso-b-east-1"),
        ] {
            assert!(meant(host, region, service), "{host}");
        }
    }

    #[test]
    fn nothing_is_signed_for_another_service_or_region() {
        for (host, region, service) in [
            ("sts.amazonaws.com", "us-east-1", "iam"),
            ("s3.eu-west-1.amazonaws.com", "eu-west-1", "sts"),
            ("s3.eu-west-1.amazonaws.com", "us-east-1", "s3"),
            ("iam.s3.eu-west-1.amazonaws.com", "eu-west-1", "iam"),
            ("us-east-1.s3.eu-west-1.amazonaws.com", "us-east-1", "s3"),
            ("s3.example.com", "us-east-1", "s3"),
            ("s3.amazonaws.com.example.com", "us-east-1", "s3"),
            ("xamazonaws.com", "us-east-1", "x"),
            ("sts.eu-west-1.amazonaws.com", "eu-west-1", "s3"),
            ("s3-accelerate.amazonaws.com", "eu-west-1", "sts"),
            ("s3-eu-west-1.amazonaws.com", "eu-west-1", "sts"),
            ("eu-west-1.amazonaws.com", "eu-west-1", "eu-west-1"),
        ] {
            assert!(!meant(host, region, service), "{host}");
        }
    }

    #[test]
    fn hosts_of_aws_are_known_by_their_domain() {
        for (host, is_of) in [
            ("sts.amazonaws.com", true),
            ("s3.cn-north-1.amazonaws.com.cn", true),
            ("lambda.us-east-1.api.aws", true),
            ("amazonaws.com", false),
            ("s3.example.com", false),
            ("xamazonaws.com", false),
        ] {
            assert_eq!(is_of_aws(host), is_of, "{host}");
        }
    }

    #[test]
    fn what_the_policy_says_is_all() {
        let said = Signing { service: "s3".to_owned(), regions: vec!["local".to_owned()] };
        let host = Host::parse("minio.example.com").unwrap();
        assert!(is_meant_for(Some(&said), &host, ("local", "s3")));
        assert!(!is_meant_for(Some(&said), &host, ("us-east-1", "s3")));
        assert!(!is_meant_for(Some(&said), &host, ("local", "sts")));
    }
}
