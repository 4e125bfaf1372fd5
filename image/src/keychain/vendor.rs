//! The cloud vendors' registries: their own helpers are run where they are installed and nobody forbade it. Their SDKs
//! are not compiled in: they would outweigh everything else.

use super::{Credentials, helper};

/// A vendor: which hosts are its registries, its helpers in order of preference, the variable that forbids them.
struct Vendor {
    owns: fn(&str) -> bool,
    helpers: &'static [&'static str],
    skip: &'static str,
}

const VENDORS: &[Vendor] = &[
    Vendor { owns: is_amazon, helpers: &["ecr-login"], skip: "CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_AMAZON" },
    Vendor { owns: is_azure, helpers: &["acr-env"], skip: "CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_AZURE" },
    Vendor { owns: is_google, helpers: &["gcr", "gcloud"], skip: "CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_GOOGLE" },
];

/// What the vendor's helper knows about its registry.
pub(super) fn ask(host: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<(Credentials, String)> {
    let vendor = VENDORS.iter().find(|v| (v.owns)(host))?;
    if env(vendor.skip).is_some_and(|v| matches!(v.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")) {
        return None;
    }
    vendor.helpers.iter().find_map(|name| {
        let executable = format!("docker-credential-{name}");
        helper::find(&executable, env)?;
        Some((helper::ask(name, host, env)?, executable))
    })
}

/// `<account>.dkr.ecr[-fips].<region>.amazonaws.com[.cn]` and its newer forms, and the public one.
fn is_amazon(host: &str) -> bool {
    if matches!(host, "public.ecr.aws" | "ecr-public.aws.com") {
        return true;
    }
    let Some((account, rest)) = host.split_once('.') else { return false };
    let private = ["dkr.ecr.", "dkr.ecr-fips.", "dkr-ecr.", "dkr-ecr-fips."].iter().any(|p| rest.starts_with(p));
    account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && private
        && [".amazonaws.com", ".amazonaws.com.cn", ".on.aws", ".on.amazonwebservices.com.cn", ".aws.eu"]
            .iter()
            .any(|end| rest.ends_with(end))
}

fn is_azure(host: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.de", ".azurecr.us"].iter().any(|end| host.ends_with(end))
}

fn is_google(host: &str) -> bool {
    host == "gcr.io" || host.ends_with(".gcr.io") || host.ends_with(".pkg.dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (host, vendor) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Some("ecr-login")),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", Some("ecr-login")),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some("ecr-login")),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", Some("ecr-login")),
            ("public.ecr.aws", Some("ecr-login")),
            ("12345.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", None),
            ("team.azurecr.io", Some("acr-env")),
            ("azurecr.io.example", None),
            ("eu.gcr.io", Some("gcr")),
            ("europe-docker.pkg.dev", Some("gcr")),
            ("index.docker.io", None),
        ] {
            let found = VENDORS.iter().find(|v| (v.owns)(host)).and_then(|v| v.helpers.first().copied());
            assert_eq!(found, vendor, "{host}");
        }
    }

    #[test]
    fn the_helper_is_run_unless_it_is_forbidden() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-ecr-login");
        helper::write_script(&path, r#"echo '{"Username":"AWS","Secret":"s"}'"#);
        for (skip, found) in [(None, true), (Some("false"), true), (Some("true"), false)] {
            let env = |name: &str| match name {
                "PATH" => Some(format!("{}:/bin", dir.path().display())),
                "CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_AMAZON" => skip.map(str::to_string),
                _ => None,
            };
            assert_eq!(ask("public.ecr.aws", &env).is_some(), found, "{skip:?}");
        }
    }
}
