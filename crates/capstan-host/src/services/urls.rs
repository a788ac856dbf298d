//! The services that issue and redeem `ocap:` URLs for vats.

use super::{Call, Service, ServiceError};
use capstan_model::id::KRef;
use capstan_model::smallcaps::Value;

/// `issue(object)` → URL.
pub(super) struct Issuer;

impl Service for Issuer {
    async fn call(&self, call: Call) -> Result<Value<KRef>, ServiceError> {
        match call.method.as_str() {
            "issue" => {
                let object = call.settled_object(0).await?;
                Ok(Value::String(call.host()?.issue_url(object).await?))
            }
            _ => Err(call.unknown_method()),
        }
    }
}

/// `redeem(url)` → object.
pub(super) struct Redeemer;

impl Service for Redeemer {
    async fn call(&self, call: Call) -> Result<Value<KRef>, ServiceError> {
        match call.method.as_str() {
            "redeem" => {
                let url = call.text(0, "the URL")?;
                let object = call.host()?.redeem_url(url).await?;
                Ok(Value::Object { slot: object.into(), iface: None })
            }
            _ => Err(call.unknown_method()),
        }
    }
}
