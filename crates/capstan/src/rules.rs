//! What holds for all vats of a daemon, unless a vat's configuration says otherwise: limits, and which globals may be asked
//! for (04 §2, §8).

use crate::cluster::LimitsSpec;
use crate::limit::{self, Limit};
use capstan_model::vat::{GLOBALS, VatLimits};

/// The rules of one daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VatRules {
    /// Limits of vats that have none of their own; of several for one thing the last counts.
    pub limits: Vec<Limit<LimitsSpec>>,
    /// The globals that vats may ask for; none: all there are.
    pub allowed_globals: Option<Vec<String>>,
}

impl VatRules {
    /// The limits of a vat that says nothing about them.
    pub(crate) fn limits(&self) -> VatLimits {
        limit::together(&self.limits).over(VatLimits::default())
    }

    /// The options of `daemon start` that say the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let globals =
            self.allowed_globals.iter().map(|names| format!("--allowed-globals={}", names.join(",")));
        limit::options("--limit", &self.limits).chain(globals).collect()
    }
}

/// Reads a list of globals; an empty one allows none.
pub(crate) fn allowed_globals(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    match names.iter().find(|name| !GLOBALS.contains(&name.as_str())) {
        None => Ok(names),
        Some(unknown) => Err(format!("there is no global {unknown:?}; there are {}", GLOBALS.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_names_of_the_configuration() {
        let limit = |text: &str| text.parse::<Limit<LimitsSpec>>();
        let limits = ["crankDeadlineMs=5", "queuedMax=7", "crankDeadlineMs=6"].map(limit);
        let rules = VatRules { limits: limits.into_iter().flatten().collect(), allowed_globals: None };
        assert_eq!(rules.limits(), VatLimits { crank_deadline_ms: 6, queued_max: 7, ..VatLimits::default() });
        for (text, why) in [
            ("x=1", "unknown field `x`"),
            ("queuedMax", "expected NAME=NUMBER"),
            ("queuedMax=-1", "not a number"),
            ("queuedMax=99999999999", "invalid value"),
        ] {
            assert!(limit(text).is_err_and(|error| error.contains(why)), "{text}");
        }
    }

    #[test]
    fn a_daemon_is_told_what_the_command_was() {
        let rules = VatRules {
            limits: "slotsMax=3".parse().into_iter().collect(),
            allowed_globals: allowed_globals("URL,Date").ok(),
        };
        assert_eq!(rules.arguments(), ["--limit", "slotsMax=3", "--allowed-globals=URL,Date"]);
        assert_eq!(allowed_globals(""), Ok(Vec::new()));
        assert!(allowed_globals("process").is_err_and(|why| why.contains("\"process\"")));
    }
}
