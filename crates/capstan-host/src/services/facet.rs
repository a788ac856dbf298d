//! The kernel facet: the kernel's operations as a service, for system subclusters only (02 §10.3).

use super::{Call, Service, ServiceError, reason_text};
use crate::host::Host;
use crate::loader::Loader;
use crate::outcome::Launched;
use capstan_kernel::host_op::{Answer, HostOp, SubclusterView, VatView};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId};
use capstan_model::smallcaps::{Value, encode, js_number};
use serde_json::{Map, Value as Json};
use std::str::FromStr;

/// What a presence claims to be if nobody says.
const DEFAULT_IFACE: &str = "Kernel Object";

pub(super) struct Facet {
    pub(super) load: Option<Loader>,
}

type Passable = Value<KRef>;

impl Service for Facet {
    async fn call(&self, call: Call) -> Result<Passable, ServiceError> {
        let host = call.host()?;
        match call.method.as_str() {
            "ping" => Ok(text("pong")),
            "getStatus" => status(&host).await,
            "getSubcluster" => {
                let id = call.text(0, "the subcluster id")?;
                let found =
                    subclusters(&host).await?.into_iter().find(|view| view.subcluster.to_string() == id);
                Ok(found.as_ref().map_or(Value::Undefined, subcluster))
            }
            "getSubclusters" => Ok(Value::Array(subclusters(&host).await?.iter().map(subcluster).collect())),
            "getSystemSubclusterRoot" => Ok(text(host.system_root(call.text(0, "the name")?).await?)),
            "getPresence" => {
                let slot = id::<ObjectId>(&call, 0, "the kref")?.into();
                let iface = match call.arg(1) {
                    Value::Undefined => DEFAULT_IFACE,
                    _ => call.text(1, "the interface name")?,
                };
                Ok(Value::Object { slot, iface: Some(iface.to_owned()) })
            }
            "launchSubcluster" => self.launch(&host, call.arg(0)).await,
            "terminateSubcluster" => {
                let id = id(&call, 0, "the subcluster id")?;
                host.request(HostOp::TerminateSubcluster(id)).await?;
                Ok(Value::Undefined)
            }
            "pingVat" => {
                host.request(HostOp::PingVat(id(&call, 0, "the vat id")?)).await?;
                Ok(text("pong"))
            }
            "queueMessage" => queue_message(&host, &call).await,
            "registerKernelServiceObject" => {
                let (name, object) = (call.text(0, "the service name")?, call.object(1)?);
                host.register_forwarder(name, object).await?;
                Ok(Value::Undefined)
            }
            "reset" => {
                // The call itself does not outlive it: nobody is left to be told.
                host.reset().await?;
                Ok(Value::Undefined)
            }
            _ => Err(call.unknown_method()),
        }
    }
}

impl Facet {
    async fn launch(&self, host: &Host, config: &Passable) -> Result<Passable, ServiceError> {
        let load = self.load.clone().ok_or_else(|| ServiceError::new("this host loads no configurations"))?;
        let config = json(config)?;
        let loaded = tokio::task::spawn_blocking(move || load.load(&config)).await;
        let config = loaded.map_err(ServiceError::new)?.map_err(ServiceError::new)?;
        let Launched { subcluster, root, bootstrap_result, .. } = host.launch(config).await?;
        Ok(record([
            ("subclusterId", text(subcluster)),
            ("rootKref", text(root)),
            ("bootstrapResult", bootstrap_result.as_ref().map_or(Value::Null, capdata)),
        ]))
    }
}

/// `queueMessage(kref, method, args)`: what the call fulfils with, as CapData.
async fn queue_message(host: &Host, call: &Call) -> Result<Passable, ServiceError> {
    let target: KRef = id(call, 0, "the kref")?;
    let method = text(call.text(1, "the method")?);
    let args @ Value::Array(_) = call.arg(2).clone() else {
        return Err(ServiceError::new("the arguments must be a list"));
    };
    let settled = host.send(target, encode(&Value::Array(vec![method, args]))).await?;
    if settled.rejected {
        return Err(ServiceError::new(reason_text(&settled.value)));
    }
    Ok(capdata(&settled.value))
}

/// What runs, of one moment.
async fn status(host: &Host) -> Result<Passable, ServiceError> {
    let Answer::Overview { vats, subclusters } = host.request(HostOp::Overview).await? else {
        return Err(ServiceError::new("the kernel gave no overview"));
    };
    let peer = ("peerId", text(host.peer()));
    let remote_comms = if host.has_network() {
        let listen = Value::Array(host.listen().iter().map(text).collect());
        record([("state", text("connected")), peer, ("listenAddresses", listen)])
    } else {
        record([("state", text("identity-only")), peer])
    };
    Ok(record([
        ("vats", Value::Array(vats.iter().map(|view| vat(view, &subclusters)).collect())),
        ("subclusters", Value::Array(subclusters.iter().map(subcluster).collect())),
        ("remoteComms", remote_comms),
    ]))
}

async fn subclusters(host: &Host) -> Result<Vec<SubclusterView>, ServiceError> {
    match host.request(HostOp::ListSubclusters).await? {
        Answer::Subclusters(views) => Ok(views),
        _ => Err(ServiceError::new("the kernel gave no subclusters")),
    }
}

fn vat(view: &VatView, subclusters: &[SubclusterView]) -> Passable {
    let home = subclusters.iter().find(|subcluster| subcluster.subcluster == view.subcluster);
    let config = home.map_or(Json::Null, config);
    let own = config.get("vats").and_then(|vats| vats.get(&*view.name));
    record([
        ("id", text(view.vat)),
        ("name", text(&view.name)),
        ("subclusterId", text(view.subcluster)),
        ("state", text(&view.phase)),
        ("rootKref", view.root.map_or(Value::Null, text)),
        ("config", own.map_or(Value::Null, passable)),
    ])
}

fn subcluster(view: &SubclusterView) -> Passable {
    let vats = view.vats.iter().map(|(name, vat)| (name.to_string(), text(vat)));
    record([
        ("id", text(view.subcluster)),
        ("bootstrap", text(&view.bootstrap)),
        ("vats", Value::Record(vats.collect())),
        ("config", passable(&config(view))),
    ])
}

/// The configuration a subcluster was launched from.
fn config(view: &SubclusterView) -> Json {
    serde_json::from_str(&view.config).unwrap_or(Json::Null)
}

/// JSON as a value.
fn passable(json: &Json) -> Passable {
    match json {
        Json::Null => Value::Null,
        Json::Bool(bit) => Value::Bool(*bit),
        Json::Number(number) => number.as_f64().map_or_else(|| text(number), Value::Number),
        Json::String(string) => text(string),
        Json::Array(items) => Value::Array(items.iter().map(passable).collect()),
        Json::Object(fields) => {
            Value::Record(fields.iter().map(|(key, value)| (key.clone(), passable(value))).collect())
        }
    }
}

/// CapData as a value: its references as text.
fn capdata(value: &CapData<KRef>) -> Passable {
    let slots = value.slots.iter().map(text).collect();
    record([("body", text(&value.body)), ("slots", Value::Array(slots))])
}

fn record<const N: usize>(fields: [(&str, Passable); N]) -> Passable {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(text: impl ToString) -> Passable {
    Value::String(text.to_string())
}

/// The argument at `at` as an identifier.
fn id<T: FromStr<Err: std::fmt::Display>>(call: &Call, at: usize, what: &str) -> Result<T, ServiceError> {
    call.text(at, what)?.parse().map_err(ServiceError::new)
}

/// A value that is plain data, as JSON.
fn json(value: &Passable) -> Result<Json, ServiceError> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(bit) => Json::Bool(*bit),
        Value::String(text) => Json::String(text.clone()),
        // A number of JavaScript is one of JSON as it is written, unless it is not finite.
        Value::Number(number) => serde_json::from_str(&js_number(*number)).map_err(ServiceError::new)?,
        Value::Array(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Value::Record(fields) => {
            let fields = fields.iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
            Json::Object(fields.collect::<Result<Map<_, _>, ServiceError>>()?)
        }
        _ => return Err(ServiceError::new("a configuration is plain data")),
    })
}

/// Passes all calls on to an object.
pub(crate) struct Forwarder(pub(crate) ObjectId);

impl Service for Forwarder {
    async fn call(&self, call: Call) -> Result<Passable, ServiceError> {
        let methargs = encode(&Value::Array(vec![text(&call.method), Value::Array(call.args.clone())]));
        let settled = call.host()?.send(self.0.into(), methargs).await?;
        if settled.rejected {
            return Err(ServiceError::new(reason_text(&settled.value)));
        }
        capstan_model::smallcaps::decode(&settled.value).map_err(ServiceError::new)
    }
}
