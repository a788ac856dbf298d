//! The list of known relays, on record (03 A.6). Its rules are in [`capstan_wire::relay_pool`].

use super::Channels;
use crate::effect::{Effect, LogLevel, Step};
use crate::kernel::KernelConfig;
use crate::turn::{Turn, transact};
use capstan_model::peer::{Hint, Millis};
use capstan_store::overlay::{Db, Tx};
use capstan_store::schema::{Meta, RelayRow, Relays};
use capstan_wire::relay_pool::{self, KnownRelay, Pool};
use capstan_wire::seam::LinkOrder;
use capstan_wire::url::OcapUrl;

/// Under which a store that came from the reference keeps its list, as one text.
const FOREIGN_LIST: &str = "knownRelays";

fn known(tx: &Tx<'_>) -> Vec<KnownRelay> {
    let known = |row: &RelayRow| KnownRelay {
        address: row.address.clone(),
        last_seen: row.last_seen,
        bootstrap: row.bootstrap,
    };
    tx.iter::<Relays>().map(|(_, row)| known(row)).collect()
}

/// At the start of a life: takes over a list of the reference's, then what the operator gives.
pub(super) fn at_start(db: &mut Db, config: &KernelConfig, now: Millis, step: &mut Step) {
    let item = || "a list of relays".to_owned();
    let taken = transact(db, config, now, step, item, |turn| {
        let Some(text) = turn.tx.get::<Meta>(&FOREIGN_LIST.into()).cloned() else { return Ok(None) };
        let (listed, older) = match relay_pool::read_list(&text) {
            Ok(read) => read,
            Err(error) => return Ok(Some(error)),
        };
        turn.tx.delete::<Meta>(&FOREIGN_LIST.into());
        let mut relays = known(&turn.tx);
        for relay in listed {
            if relays.iter().all(|known| known.address != relay.address) {
                relays.push(relay);
            }
        }
        keep(turn, &relays);
        let form = if older { " of addresses alone" } else { "" };
        turn.log(LogLevel::Info, format!("took over a list{form} with {} relays", relays.len()));
        Ok(None)
    });
    if let Ok(Some(error)) = taken {
        step.effects.push(Effect::Log { level: LogLevel::Error, text: error.to_string() });
    }
    let item = || "the relays given at the start".to_owned();
    let _set_aside = transact(db, config, now, step, item, |turn| {
        given(turn);
        Ok(())
    });
}

/// Puts the relays that the operator gives on record.
pub(crate) fn given(turn: &mut Turn<'_>) {
    let config = turn.config;
    let cap = config.relay_limits.known();
    let pool = relay_pool::started(known(&turn.tx), &config.relays, turn.now, cap);
    if pool.cut {
        let given = config.relays.len();
        turn.log(LogLevel::Warn, format!("{given} relays are given, of which {cap} are kept"));
    }
    changed(turn, &pool);
}

/// Tells the links of every relay on record.
pub(super) fn use_all(db: &Db, step: &mut Step) {
    let relays: Vec<Hint> = db.iter::<Relays>().map(|(_, row)| row.address.clone()).collect();
    if !relays.is_empty() {
        step.effects.push(Effect::Link(LinkOrder::UseRelays { relays }));
    }
}

/// Learns the relays that a peer's URL names.
pub(super) fn learn(turn: &mut Turn<'_>, url: &OcapUrl) {
    let named: Vec<Hint> =
        url.hints.iter().filter_map(|hint| relay_pool::relay_of(hint, &url.host)).collect();
    if named.is_empty() {
        return;
    }
    let before = known(&turn.tx);
    let cap = turn.config.relay_limits.known();
    let pool = relay_pool::learned(before.clone(), &named, turn.now, cap);
    changed(turn, &pool);
    let is_new = |relay: &KnownRelay| before.iter().all(|known| known.address != relay.address);
    let relays: Vec<Hint> = pool.relays.into_iter().filter(is_new).map(|relay| relay.address).collect();
    if !relays.is_empty() {
        turn.link(LinkOrder::UseRelays { relays });
    }
}

fn changed(turn: &mut Turn<'_>, pool: &Pool) {
    if pool.evicted > 0 {
        turn.log(LogLevel::Info, format!("forgot {} relays, the oldest learned first", pool.evicted));
    }
    keep(turn, &pool.relays);
}

/// Makes the rows say what the list says; what is the same is not written.
fn keep(turn: &mut Turn<'_>, relays: &[KnownRelay]) {
    let rows: Vec<(u64, RelayRow)> =
        turn.tx.iter::<Relays>().map(|(number, row)| (*number, row.clone())).collect();
    for (number, row) in &rows {
        if relays.iter().all(|relay| relay.address != row.address) {
            turn.tx.delete::<Relays>(number);
        }
    }
    for relay in relays {
        let fresh = RelayRow {
            address: relay.address.clone(),
            last_seen: relay.last_seen,
            bootstrap: relay.bootstrap,
        };
        let number = match rows.iter().find(|(_, row)| row.address == relay.address) {
            Some((_, row)) if *row == fresh => continue,
            Some((number, _)) => *number,
            None => turn.next_number("relay"),
        };
        turn.tx.put::<Relays>(number, fresh);
    }
}

/// What a URL of ours says of where we are (03 A-26).
pub(crate) fn url_hints(tx: &Tx<'_>, config: &KernelConfig, channels: &Channels) -> Vec<Hint> {
    let direct: Vec<Hint> =
        channels.listen.iter().filter(|address| !relay_pool::is_relayed(address)).cloned().collect();
    relay_pool::url_hints(&direct, &known(tx), config.relay_limits.url_hints())
}
