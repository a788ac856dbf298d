//! What is shown of a kernel, with the field names of the command line's contract (07).

use super::super::error::RpcError;
use super::{request, unexpected};
use crate::daemon::Daemon;
use capstan_host::{FsckReport, Launched};
use capstan_kernel::host_op::{Answer, HostOp, SubclusterView, VatView};
use capstan_model::id::SubclusterId;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

type Outcome = Result<Json, RpcError>;

/// `getStatus`: vats, subclusters and what the network is up to (02 §14).
pub(super) async fn kernel_status(daemon: &Daemon) -> Outcome {
    let Answer::Overview { vats, subclusters } = request(daemon, HostOp::Overview).await? else {
        return Err(RpcError::failed(crate::error::Code::Internal, "the kernel gave no overview"));
    };
    let configs: BTreeMap<SubclusterId, Json> =
        subclusters.iter().map(|view| (view.subcluster, config(view))).collect();
    let vat_config = |view: &VatView| configs.get(&view.subcluster)?.get("vats")?.get(&*view.name).cloned();
    let vats: Vec<Json> = vats
        .iter()
        .map(|view| with(vat(view), [("id", json!(view.vat)), ("config", json!(vat_config(view)))]))
        .collect();
    let subclusters: Vec<Json> = subclusters
        .iter()
        .map(|view| with(subcluster(view), [("id", json!(view.subcluster)), ("config", config(view))]))
        .collect();
    let host = daemon.host();
    let listen = host.listen();
    let comms = if host.has_network() {
        json!({"state": "connected", "peerId": host.peer(), "listenAddresses": listen})
    } else {
        json!({"state": "identity-only", "peerId": host.peer()})
    };
    Ok(json!({"vats": vats, "subclusters": subclusters, "remoteComms": comms}))
}

pub(super) async fn status(daemon: &Daemon) -> Outcome {
    let Answer::Status(status) = request(daemon, HostOp::Status).await? else {
        return Err(RpcError::failed(crate::error::Code::Internal, "the kernel gave no status"));
    };
    let host = daemon.host();
    Ok(json!({
        "peerId": host.peer(), "incarnation": status.incarnation, "listen": host.listen(), "vats": status.vats,
        "subclusters": status.subclusters, "remotes": status.remotes, "objects": status.objects,
        "promises": status.promises, "queued": status.queued, "alarms": status.alarms,
    }))
}

fn vat(view: &VatView) -> Json {
    let mut json = json!({
        "vatId": view.vat, "name": view.name, "subclusterId": view.subcluster, "state": view.phase,
        "rootKref": view.root, "source": view.source, "incarnation": view.incarnation,
    });
    if let (Some(failure), Some(object)) = (&view.failure, json.as_object_mut()) {
        object.insert("failure".into(), failure.as_str().into());
    }
    json
}

pub(super) async fn vats(daemon: &Daemon) -> Outcome {
    match request(daemon, HostOp::ListVats).await? {
        Answer::Vats(vats) => Ok(Json::Array(vats.iter().map(vat).collect())),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn subclusters(daemon: &Daemon) -> Outcome {
    let Answer::Subclusters(list) = request(daemon, HostOp::ListSubclusters).await? else {
        return Err(RpcError::failed(crate::error::Code::Internal, "the kernel gave no subclusters"));
    };
    Ok(list.iter().map(subcluster).collect())
}

fn subcluster(view: &SubclusterView) -> Json {
    let vats: Map<String, Json> =
        view.vats.iter().map(|(name, vat)| (name.to_string(), json!(vat))).collect();
    let json = json!({"subclusterId": view.subcluster, "bootstrap": view.bootstrap, "vats": vats});
    match &view.system {
        None => json,
        Some(name) => with(json, [("system", json!(name))]),
    }
}

/// The configuration a subcluster was launched from.
fn config(view: &SubclusterView) -> Json {
    serde_json::from_str(&view.config).unwrap_or_default()
}

/// An object with more fields.
fn with<const N: usize>(mut json: Json, fields: [(&str, Json); N]) -> Json {
    if let Some(object) = json.as_object_mut() {
        object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    }
    json
}

pub(super) async fn remotes(daemon: &Daemon) -> Outcome {
    let Answer::Remotes(list) = request(daemon, HostOp::ListRemotes).await? else {
        return Err(RpcError::failed(crate::error::Code::Internal, "the kernel gave no remotes"));
    };
    let list = list.iter().map(|view| {
        json!({
            "remoteId": view.remote, "peerId": view.peer, "state": view.state,
            "peerIncarnation": view.peer_incarnation, "restartsSeen": view.restarts_seen, "sent": view.sent,
            "acked": view.acked, "received": view.received, "pending": view.pending, "hints": view.hints,
        })
    });
    Ok(list.collect())
}

pub(super) async fn grants(daemon: &Daemon) -> Outcome {
    let Answer::Grants(list) = request(daemon, HostOp::ListUrls).await? else {
        return Err(RpcError::failed(crate::error::Code::Internal, "the kernel gave no grants"));
    };
    let list = list.iter().map(|view| {
        json!({
            "grant": view.grant, "kref": view.object, "issued": view.issued, "lastUsed": view.last_used,
            "revoked": view.revoked,
        })
    });
    Ok(list.collect())
}

pub(super) async fn dead_letters(daemon: &Daemon) -> Outcome {
    let Answer::DeadLetters(list) = request(daemon, HostOp::ListDeadLetters).await? else {
        return Err(RpcError::failed(crate::error::Code::Internal, "the kernel gave no dead letters"));
    };
    let list = list
        .iter()
        .map(|view| json!({"number": view.number, "at": view.at, "item": view.item, "reason": view.reason}));
    Ok(list.collect())
}

/// What a launch made; `bootstrapResult` as the kernel has it.
pub(super) fn launched(launched: &Launched) -> Json {
    let vats: Map<String, Json> = launched
        .vats
        .iter()
        .map(|(name, vat, root)| (name.to_string(), json!({"vatId": vat, "rootKref": root})))
        .collect();
    json!({
        "subclusterId": launched.subcluster, "rootKref": launched.root,
        "bootstrapResult": launched.bootstrap_result, "vats": vats,
    })
}

/// What an audit found.
pub(crate) fn fsck(report: &FsckReport) -> Json {
    let checked: Map<String, Json> =
        report.checked.iter().map(|(table, rows)| ((*table).to_owned(), json!(rows))).collect();
    json!({"ok": report.problems.is_empty(), "problems": report.problems, "checked": checked})
}
