//! What may be asked of a daemon (05 §2), and by which name.

use super::error::{RpcError, UNKNOWN_METHOD};
use super::methods::params::{Backup, Id, Kref, Launch, Name, Peer, RemoteComms, Sql, Url, parse};
use crate::cluster::{self, Cluster};
use crate::daemon::Daemon;
use crate::error::{CliError, Code};
use capstan_host::{HostError, QueryError, Record};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal};
use capstan_model::id::{KRef, ObjectId};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::path::Path;

mod params;
mod send;
pub(crate) mod views;

type Outcome = Result<Json, RpcError>;

/// Methods that have nothing to be told.
const WITHOUT_PARAMS: [&str; 14] = [
    "getStatus",
    "terminateAllVats",
    "clearState",
    "collectGarbage",
    "gc",
    "listOcapURLs",
    "takeRecoveryPhrase",
    "status",
    "listVats",
    "listSubclusters",
    "listRemotes",
    "deadLetters",
    "daemonStatus",
    "fsck",
];

/// Carries out one request.
pub(crate) async fn call(daemon: &Daemon, method: &str, params: Json) -> Outcome {
    if WITHOUT_PARAMS.contains(&method) && params != json!([]) && params != json!({}) {
        return Err(RpcError::params("expected none"));
    }
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
        "terminateAllVats" => done(daemon, HostOp::TerminateAllVats).await,
        "clearState" => {
            daemon.host().reset().await?;
            Ok(Json::Null)
        }
        "collectGarbage" => request(daemon, HostOp::Collect).await.map(|_| Json::Null),
        "gc" => match request(daemon, HostOp::Collect).await? {
            Answer::Collected { objects_before, objects_after } => {
                Ok(json!({"objectsBefore": objects_before, "objectsAfter": objects_after}))
            }
            other => Err(unexpected(&other)),
        },
        "revoke" => done(daemon, HostOp::Revoke(parse::<Kref>(params)?.kref)).await,
        "isRevoked" => match request(daemon, HostOp::IsRevoked(parse::<Kref>(params)?.kref)).await? {
            Answer::Revoked(revoked) => Ok(json!(revoked)),
            other => Err(unexpected(&other)),
        },
        "getSystemSubclusterRoot" => {
            Ok(json!(daemon.host().system_root(&parse::<Name>(params)?.name).await?))
        }
        "pin" => done(daemon, HostOp::Pin(object(parse::<Kref>(params)?.kref)?)).await,
        "unpin" => done(daemon, HostOp::Unpin(object(parse::<Kref>(params)?.kref)?)).await,
        "pinVatRoot" => root(daemon, HostOp::PinRoot(parse::<Id<_>>(params)?.id)).await,
        "unpinVatRoot" => root(daemon, HostOp::UnpinRoot(parse::<Id<_>>(params)?.id)).await,
        "query" => {
            query(daemon, parse(params)?).await.map(|rows| rows.into_iter().map(Json::Object).collect())
        }
        "executeDBQuery" => Ok(query(daemon, parse(params)?).await?.into_iter().map(as_texts).collect()),
        "takeRecoveryPhrase" => match daemon.host().take_phrase().await? {
            Some(phrase) => Ok(json!({"mnemonic": &*phrase.0})),
            None => {
                let why = "no recovery phrase is kept here: it was printed before, or the identity was not made from \
                           one; `capstan backup` keeps the identity as well";
                Err(RpcError::failed(Code::Io, why))
            }
        },
        "issueOcapURL" => issue(daemon, parse::<Kref>(params)?.kref).await,
        "redeemOcapURL" => redeem(daemon, &parse::<Url>(params)?.url).await.map(|kref| json!(kref)),
        "listOcapURLs" => views::grants(daemon).await,
        "revokeOcapURL" => done(daemon, HostOp::RevokeUrl(parse::<Id<_>>(params)?.id)).await,
        "registerLocationHints" => {
            let Peer { peer_id: peer, hints } = parse(params)?;
            done(daemon, HostOp::PeerHint { peer, hints }).await
        }
        "initRemoteComms" => init_remote_comms(daemon, parse(params)?),
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

/// An operation that answers with the root of a vat.
async fn root(daemon: &Daemon, op: HostOp) -> Outcome {
    match request(daemon, op).await? {
        Answer::Object { object } => Ok(json!(object)),
        other => Err(unexpected(&other)),
    }
}

fn object(kref: KRef) -> Result<ObjectId, RpcError> {
    match kref {
        KRef::Object(object) => Ok(object),
        KRef::Promise(kp) => {
            Err(RpcError::failed(Code::BadReference, format!("{kp} is a promise, not an object")))
        }
    }
}

async fn issue(daemon: &Daemon, kref: KRef) -> Outcome {
    Ok(json!(daemon.host().issue_url(object(kref)?).await?))
}

/// Redeems a URL whose form is checked first, so that the kernel is asked about real ones only.
///
/// A peer that turns out to have restarted is asked once more: the question was meant for whoever is there now, and
/// asking twice does nothing twice.
async fn redeem(daemon: &Daemon, url: &str) -> Result<KRef, RpcError> {
    crate::url::check(url).map_err(|why| RpcError::from(CliError::new(Code::BadUrl, why)))?;
    let host = daemon.host();
    let object = match host.redeem_url(url).await {
        Err(Refusal::PeerRestarted) => host.redeem_url(url).await?,
        first => first?,
    };
    Ok(KRef::Object(object))
}

/// A row whose values are all texts, as clients of the reference expect; NULL is the empty one.
fn as_texts(row: Record) -> Json {
    let texts = row.into_iter().map(|(column, value)| {
        let text = match value {
            Json::Null => String::new(),
            Json::String(text) => text,
            other => other.to_string(),
        };
        (column, Json::String(text))
    });
    Json::Object(texts.collect())
}

async fn query(daemon: &Daemon, Sql { sql }: Sql) -> Result<Vec<Record>, RpcError> {
    match daemon.host().query(&sql).await {
        Ok(rows) => Ok(rows),
        Err(error @ QueryError::Refused(_)) => Err(RpcError::failed(Code::QueryRefused, error.to_string())),
        Err(error @ QueryError::Failed(_)) => Err(RpcError::failed(Code::Io, error.to_string())),
    }
}

async fn launch(daemon: &Daemon, params: Launch) -> Outcome {
    let cluster = Cluster::parse(&params.config)?;
    let force_reset = cluster.force_reset;
    let (optional, limits) = (params.bootstrap_optional, daemon.limits());
    let loaded = tokio::task::spawn_blocking(move || cluster.load(optional, limits)).await;
    let config = loaded.map_err(|error| RpcError::failed(Code::Internal, error.to_string()))??;
    if force_reset {
        terminate_equals(daemon, &config).await?;
    }
    let launched = daemon.host().launch(config).await?;
    Ok(views::launched(&launched))
}

/// Ends the subclusters that were launched from a configuration with the same names (05 §3); those that the host keeps
/// are not meant.
async fn terminate_equals(daemon: &Daemon, config: &LaunchConfig) -> Result<(), RpcError> {
    let names: BTreeSet<&str> = config.vats.iter().map(|vat| &*vat.name).collect();
    let Answer::Subclusters(running) = request(daemon, HostOp::ListSubclusters).await? else { return Ok(()) };
    for view in running.iter().filter(|view| view.system.is_none() && view.bootstrap == config.bootstrap) {
        let launched_from = cluster::vat_names(&view.config);
        if launched_from.iter().map(String::as_str).eq(names.iter().copied()) {
            match done(daemon, HostOp::TerminateSubcluster(view.subcluster)).await {
                // One that has ended by itself in the meantime is as good as terminated.
                Err(error) if error.is(Code::SubclusterNotFound) => {}
                outcome => drop(outcome?),
            }
        }
    }
    Ok(())
}

/// The network of a daemon is set up when it starts: this confirms that it is there. What can only be chosen at that time
/// is refused rather than ignored.
fn init_remote_comms(daemon: &Daemon, asked: RemoteComms) -> Outcome {
    if !daemon.host().has_network() {
        let why = "remote communications are switched off: start the daemon without --no-network";
        return Err(RpcError::failed(Code::Usage, why));
    }
    let listen = daemon.host().listen();
    let listens = |address: &String| {
        // Port 0 stands for any.
        let place = address.strip_suffix("/0").unwrap_or(address);
        listen
            .iter()
            .filter_map(|own| own.strip_prefix(place))
            .any(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let unheard = asked.direct_listen_addresses.iter().find(|address| !listens(address));
    let fixed = asked.fixed_at_start().map(str::to_owned);
    match fixed.or(unheard.map(|address| format!("listening on {address}"))) {
        None => Ok(Json::Null),
        Some(what) => {
            let why = format!("remote communications are running; {what} is chosen when the daemon starts");
            Err(RpcError::failed(Code::Usage, why))
        }
    }
}

impl From<HostError> for RpcError {
    fn from(error: HostError) -> Self {
        RpcError::failed(Code::Io, crate::daemon::with_sources(&error))
    }
}
