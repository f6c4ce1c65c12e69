//! Taints, as the kubelet reads them.

use super::quoted;
use crate::decode::{Refusal, Scalar};
use crate::diagnostic::nearest;
use crate::labels::{check_key, check_value};
use serde_json::json;
use std::fmt;

/// What keeps pods off a machine: `dedicated=media:NoSchedule`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    /// A Kubernetes label key.
    pub key: String,
    /// A Kubernetes label value, may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl fmt::Display for Taint {
    /// The form that `kubelet --register-with-taints` reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}:{}", self.key, self.effect),
            value => write!(f, "{}={value}:{}", self.key, self.effect),
        }
    }
}

/// The effects a taint can have.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

impl Scalar for Taint {
    const WHAT: &'static str = "a taint";
    fn read(text: &str) -> Result<Self, Refusal> {
        let form = "`key=value:Effect` or `key:Effect`, for example `dedicated=media:NoSchedule`";
        let Some((left, effect)) = text.rsplit_once(':') else {
            return Err(Refusal::new(format!("the taint {} has no effect", quoted(text))).hint(form));
        };
        let (key, value) = left.split_once('=').unwrap_or((left, ""));
        if !EFFECTS.contains(&effect) {
            let known = EFFECTS.join(", ");
            return Err(Refusal::new(format!("{} is not the effect of a taint", quoted(effect))).hint(
                match nearest(effect, EFFECTS) {
                    Some(near) => format!("did you mean `{near}`? Known: {known}"),
                    None => format!("known: {known}"),
                },
            ));
        }
        check_key(key).and_then(|()| check_value(value))?;
        Ok(Taint { key: key.into(), value: value.into(), effect: effect.into() })
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[^=:]+(=[^:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$" })
    }
}
