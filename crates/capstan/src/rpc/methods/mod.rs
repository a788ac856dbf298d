//! What may be asked of a daemon (05 §2), and by which name.

use super::error::{RpcError, UNKNOWN_METHOD};
use super::methods::params::{Backup, Id, Kref, Launch, Peer, Sql, Url, parse};
use crate::cluster::Cluster;
use crate::daemon::Daemon;
use crate::error::Code;
use capstan_host::{HostError, QueryError};
use capstan_kernel::host_op::{Answer, HostOp, Refusal};
use capstan_model::id::KRef;
use serde_json::{Value as Json, json};
use std::path::Path;

mod params;
mod send;
pub(crate) mod views;

type Outcome = Result<Json, RpcError>;

/// Carries out one request.
pub(crate) async fn call(daemon: &Daemon, method: &str, params: Json) -> Outcome {
    match method {
        "getStatus" => views::kernel_status(daemon).await,
        "launchSubcluster" => launch(daemon, parse(params)?).await,
        "terminateSubcluster" => done(daemon, HostOp::TerminateSubcluster(parse::<Id<_>>(params)?.id)).await,
        "queueMessage" => send::queue_message(daemon, params).await,
        "pingVat" => {
            done(daemon, HostOp::PingVat(parse::<Id<_>>(params)?.id)).await?;
            Ok(json!("pong"))
        }
        "restartVat" => done(daemon, HostOp::RestartVat(parse::<Id<_>>(params)?.id)).await,
        "terminateVat" => done(daemon, HostOp::TerminateVat(parse::<Id<_>>(params)?.id)).await,
        "terminateAllVats" => terminate_all_vats(daemon).await,
        "collectGarbage" => match request(daemon, HostOp::Collect).await? {
            Answer::Collected { objects_before, objects_after } => {
                Ok(json!({"objectsBefore": objects_before, "objectsAfter": objects_after}))
            }
            other => Err(unexpected(&other)),
        },
        "revoke" => revoke(daemon, parse::<Kref>(params)?.kref).await,
        "executeDBQuery" => query(daemon, parse(params)?).await,
        "issueOcapURL" => issue(daemon, parse::<Kref>(params)?.kref).await,
        "redeemOcapURL" => redeem(daemon, &parse::<Url>(params)?.url).await.map(|kref| json!(kref)),
        "listOcapURLs" => views::grants(daemon).await,
        "revokeOcapURL" => done(daemon, HostOp::RevokeUrl(parse::<Id<_>>(params)?.id)).await,
        "registerLocationHints" => {
            let Peer { peer_id: peer, hints } = parse(params)?;
            done(daemon, HostOp::PeerHint { peer, hints }).await
        }
        "closePeer" => done(daemon, HostOp::PeerClose(parse::<Peer>(params)?.peer_id)).await,
        "reconnectPeer" => {
            let Peer { peer_id: peer, hints } = parse(params)?;
            done(daemon, HostOp::PeerReconnect { peer, hints }).await
        }
        "forgetPeer" => done(daemon, HostOp::PeerForget(parse::<Peer>(params)?.peer_id)).await,
        "status" => views::status(daemon).await,
        "listVats" => views::vats(daemon).await,
        "listSubclusters" => views::subclusters(daemon).await,
        "listRemotes" => views::remotes(daemon).await,
        "deadLetters" => views::dead_letters(daemon).await,
        "daemonStatus" => Ok(daemon.status()),
        "fsck" => Ok(views::fsck(&daemon.host().fsck().await?)),
        "backup" => {
            let copy = daemon.host().backup(Path::new(&parse::<Backup>(params)?.file)).await?;
            Ok(json!({"bytes": copy.bytes, "sha256": copy.sha256}))
        }
        "shutdown" => {
            daemon.begin_stop();
            Ok(json!({"status": "shutting down"}))
        }
        _ => Err(RpcError::new(UNKNOWN_METHOD, "The method does not exist / is not available.")),
    }
}

async fn request(daemon: &Daemon, op: HostOp) -> Result<Answer, RpcError> {
    Ok(daemon.host().request(op).await?)
}

/// An operation that has nothing to say but that it went well.
async fn done(daemon: &Daemon, op: HostOp) -> Outcome {
    match request(daemon, op).await? {
        Answer::Done => Ok(Json::Null),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> RpcError {
    tracing::error!(?answer, "unexpected answer");
    RpcError::failed(Code::Internal, "the kernel gave an answer of another kind")
}

async fn revoke(daemon: &Daemon, kref: KRef) -> Outcome {
    match kref {
        KRef::Object(_) => done(daemon, HostOp::Revoke(kref)).await,
        KRef::Promise(kp) => Err(RpcError::failed(Code::BadReference, format!("cannot revoke promise {kp}"))),
    }
}

async fn issue(daemon: &Daemon, kref: KRef) -> Outcome {
    match kref {
        KRef::Object(object) => Ok(json!(daemon.host().issue_url(object).await?)),
        KRef::Promise(kp) => {
            Err(RpcError::failed(Code::BadReference, format!("{kp} is a promise, not an object")))
        }
    }
}

/// Redeems a URL whose form is checked first, so that the kernel is asked about real ones only.
async fn redeem(daemon: &Daemon, url: &str) -> Result<KRef, RpcError> {
    crate::url::check(url).map_err(|why| RpcError::from(Refusal::BadUrl(why)))?;
    Ok(KRef::Object(daemon.host().redeem_url(url).await?))
}

async fn query(daemon: &Daemon, Sql { sql }: Sql) -> Outcome {
    match daemon.host().query(&sql).await {
        Ok(rows) => Ok(Json::Array(rows.into_iter().map(Json::Object).collect())),
        Err(error @ QueryError::Refused(_)) => Err(RpcError::failed(Code::QueryRefused, error.to_string())),
        Err(error @ QueryError::Failed(_)) => Err(RpcError::failed(Code::Io, error.to_string())),
    }
}

async fn launch(daemon: &Daemon, params: Launch) -> Outcome {
    let cluster = Cluster::parse(&params.config)?;
    if cluster.force_reset {
        terminate_equals(daemon, &cluster).await?;
    }
    let optional = params.bootstrap_optional;
    let loaded = tokio::task::spawn_blocking(move || cluster.load(optional)).await;
    let config = loaded.map_err(|error| RpcError::failed(Code::Internal, error.to_string()))??;
    let launched = daemon.host().launch(config).await?;
    Ok(views::launched(&launched))
}

/// Ends the subclusters that were launched from a configuration with the same names.
async fn terminate_equals(daemon: &Daemon, cluster: &Cluster) -> Result<(), RpcError> {
    let (bootstrap, mut names) = cluster.names();
    names.sort_unstable();
    let Answer::Subclusters(running) = request(daemon, HostOp::ListSubclusters).await? else { return Ok(()) };
    for view in running {
        let mut theirs: Vec<&str> = view.vats.iter().map(|(name, _)| &**name).collect();
        theirs.sort_unstable();
        if *view.bootstrap == *bootstrap && theirs == names {
            done(daemon, HostOp::TerminateSubcluster(view.subcluster)).await?;
        }
    }
    Ok(())
}

async fn terminate_all_vats(daemon: &Daemon) -> Outcome {
    let Answer::Vats(vats) = request(daemon, HostOp::ListVats).await? else { return Ok(Json::Null) };
    for view in vats {
        match daemon.host().request(HostOp::TerminateVat(view.vat)).await {
            // One that has ended by itself in the meantime is as good as terminated.
            Ok(_) | Err(Refusal::VatNotFound(_)) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(Json::Null)
}

impl From<HostError> for RpcError {
    fn from(error: HostError) -> Self {
        RpcError::failed(Code::Io, crate::daemon::with_sources(&error))
    }
}
