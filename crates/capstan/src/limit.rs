//! Limits on the command line: `NAME=NUMBER`, each read into a structure that knows the names.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// One limit as written, such as `crankDeadlineMs=5000`; `Spec` has a field of that name which takes such a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit<Spec> {
    name: String,
    value: u64,
    spec: PhantomData<Spec>,
}

impl<Spec: DeserializeOwned> FromStr for Limit<Spec> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
        let value = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
        let single = Map::from_iter([(name.to_owned(), Json::from(value))]);
        serde_json::from_value::<Spec>(Json::Object(single)).map_err(|error| error.to_string())?;
        Ok(Limit { name: name.to_owned(), value, spec: PhantomData })
    }
}

impl<Spec> fmt::Display for Limit<Spec> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// All of them together; of several for one thing the last counts.
pub(crate) fn together<Spec: DeserializeOwned + Default>(limits: &[Limit<Spec>]) -> Spec {
    let named = limits.iter().map(|limit| (limit.name.clone(), Json::from(limit.value)));
    // Each was read like this before.
    serde_json::from_value(Json::Object(named.collect())).unwrap_or_default()
}

/// The options that say the same again.
pub(crate) fn options<'l, Spec>(
    name: &'l str,
    limits: &'l [Limit<Spec>],
) -> impl Iterator<Item = String> + 'l {
    limits.iter().flat_map(move |limit| [name.to_owned(), limit.to_string()])
}
