//! Known relays: given, learned, forgotten, and named in the URLs of this kernel (03 A.6).

use crate::harness::World;
use capstan_kernel::audit::audit;
use capstan_kernel::effect::{Effect, LogLevel};
use capstan_kernel::host_op::{Answer, HostOp};
use capstan_kernel::input::{Input, RequestId};
use capstan_kernel::kernel::{Kernel, KernelConfig};
use capstan_model::id::ObjectId;
use capstan_model::peer::{Hint, Incarnation, Millis, PeerId};
use capstan_store::overlay::Db;
use capstan_store::schema::{Meta, RelayRow, Relays, Remotes, Tables};
use capstan_wire::relay_pool::RelayLimits;
use capstan_wire::seam::{LinkEvent, LinkOrder};
use capstan_wire::url::{OcapUrl, oid_from_secret};

const OWN: &str = "12D3KooWtest";

fn relay(name: &str) -> String {
    format!("/ip4/10.0.0.1/tcp/9/p2p/{name}")
}

fn row(name: &str, last_seen: u64, bootstrap: bool) -> RelayRow {
    RelayRow { address: relay(name).into(), last_seen: Millis(last_seen), bootstrap }
}

/// A kernel and what it has said.
struct Station {
    kernel: Kernel,
    durable: Tables,
    effects: Vec<Effect>,
    requests: u64,
}

impl Station {
    fn over(durable: Tables, given: &[&str], limits: RelayLimits, now: u64) -> Self {
        let mut config = KernelConfig::new(PeerId::new(OWN));
        config.audit_every_transaction = true;
        config.relays = given.iter().map(|name| relay(name).into()).collect();
        config.relay_limits = limits;
        let mut loaded = Tables::default();
        loaded.apply(&durable.snapshot());
        loaded.rebuild_mirrors();
        let kernel = Kernel::new(Db::load(loaded), config);
        let mut station = Station { kernel, durable, effects: Vec::new(), requests: 0 };
        station.input(now, Input::Booted);
        station
    }
    fn new(given: &[&str], known: f64, now: u64) -> Self {
        Station::over(Tables::default(), given, RelayLimits::new(3.0, known).unwrap(), now)
    }
    fn restart(self, given: &[&str], known: f64, now: u64) -> Self {
        Station::over(self.durable, given, RelayLimits::new(3.0, known).unwrap(), now)
    }
    fn input(&mut self, now: u64, input: Input) {
        let step = self.kernel.step(Millis(now), input);
        self.durable.apply(&self.kernel.take_changes());
        self.effects.extend(step.effects);
        assert_eq!(audit(self.kernel.db().tables()), []);
    }
    fn ask(&mut self, now: u64, op: HostOp) {
        self.requests += 1;
        self.input(now, Input::Requested { request: RequestId(self.requests), op });
    }
    /// Redeems a URL of a peer's that names these places.
    fn redeem(&mut self, now: u64, host: &str, hints: &[String]) {
        let hints = hints.iter().map(|hint| hint.as_str().into()).collect();
        let url = OcapUrl { oid: oid_from_secret(&[7; 32]), host: PeerId::new(host), hints };
        let reply_key = format!("key-{now}").into();
        self.ask(now, HostOp::RedeemUrl { url: url.to_string(), reply_key });
    }
    fn rows(&self) -> Vec<RelayRow> {
        self.durable.relays.iter().map(|(_, row)| row.clone()).collect()
    }
    /// The relays that the links were told of, by each order.
    fn used(&self) -> Vec<Vec<Hint>> {
        let used = |effect: &Effect| match effect {
            Effect::Link(LinkOrder::UseRelays { relays }) => Some(relays.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(used).collect()
    }
    fn logs(&self, level: LogLevel) -> Vec<String> {
        let line = |effect: &'_ Effect| match effect {
            Effect::Log { level: of, text } if *of == level => Some(text.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(line).collect()
    }
}

fn addresses(names: &[&str]) -> Vec<Hint> {
    names.iter().map(|name| relay(name).into()).collect()
}

#[test]
fn r15_a_url_names_our_addresses_and_relays() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    let object: ObjectId = vats.root("alice");
    let hints = |world: &mut World, secret: u8| {
        let issued = world.request(HostOp::IssueUrl { object, secret: [secret; 32] });
        let Ok(Answer::Url { hints, .. }) = issued else { panic!("{issued:?}") };
        hints.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(hints(&mut world, 1), [] as [&str; 0]);
    let listen = ["/a/p2p/me", "/r/p2p/x/p2p-circuit/p2p/me", "/b/p2p/me", "/c/p2p/me"];
    let event = LinkEvent::Listening { addresses: listen.map(Hint::from).to_vec() };
    world.input(Input::Link { event, fresh: Incarnation::new("x") });
    assert_eq!(hints(&mut world, 2), ["/a/p2p/me", "/b/p2p/me", "/c/p2p/me"]);
    let mut world = world.reboot_changed(|tx| {
        tx.put::<Relays>(1, row("learned", 9, false));
        tx.put::<Relays>(2, row("given", 1, true));
        tx.put::<capstan_store::schema::Counters>("relay".into(), 3);
    });
    assert_eq!(hints(&mut world, 3), [relay("given"), relay("learned")]);
}

#[test]
fn r17_r18_r20_relays_given_and_learned_stay_on_record() {
    let mut station = Station::new(&["one", "two"], 3.0, 5);
    assert_eq!(station.rows(), [row("one", 5, true), row("two", 5, true)]);
    assert_eq!(station.used(), [addresses(&["one", "two"])]);
    station.redeem(6, "12D3Peer", &[relay("three"), relay("one")]);
    assert_eq!(station.rows(), [row("one", 6, true), row("two", 5, true), row("three", 6, false)]);
    assert_eq!(station.used().last(), Some(&addresses(&["three"])), "only what is new is told");
    station.redeem(7, "12D3Peer", &[relay("four")]);
    assert_eq!(station.rows(), [row("one", 6, true), row("two", 5, true), row("four", 7, false)]);
    assert!(station.logs(LogLevel::Info).contains(&"forgot 1 relays, the oldest learned first".to_owned()));
    let station = station.restart(&["two"], 3.0, 8);
    assert_eq!(station.rows(), [row("one", 6, false), row("two", 8, true), row("four", 7, false)]);
    assert_eq!(station.used(), [addresses(&["one", "two", "four"])]);
}

#[test]
fn r19_more_given_relays_than_are_kept_are_cut_and_that_is_told() {
    let station = Station::new(&["one", "two", "three"], 2.0, 5);
    assert_eq!(station.rows(), [row("one", 5, true), row("two", 5, true)]);
    assert_eq!(station.logs(LogLevel::Warn), ["3 relays are given, of which 2 are kept"]);
}

#[test]
fn r24_relays_on_record_serve_when_none_are_given_and_are_not_written_again() {
    let station = Station::new(&["one"], 20.0, 5).restart(&[], 20.0, 9);
    assert_eq!(station.rows(), [row("one", 5, true)]);
    assert_eq!(station.used(), [addresses(&["one"])]);
}

#[test]
fn r25_redeeming_a_peers_url_learns_its_relays_and_one_of_ours_does_not() {
    let mut station = Station::new(&[], 20.0, 5);
    let (peer, direct) = ("12D3Peer", "/ip4/10.0.0.2/tcp/7/p2p/12D3Peer".to_owned());
    let circuit = format!("{}/p2p-circuit/p2p/{peer}", relay("two"));
    station.redeem(6, peer, &[direct.clone(), relay("one"), circuit.clone()]);
    assert_eq!(station.rows(), [row("one", 6, false), row("two", 6, false)]);
    assert_eq!(station.used(), [addresses(&["one", "two"])]);
    let hints = station.kernel.db().iter::<Remotes>().map(|(_, row)| row.hints.clone()).next().unwrap();
    assert_eq!(hints, [direct, relay("one"), circuit].map(Hint::from));
    station.redeem(7, OWN, &[relay("three")]);
    assert_eq!(station.rows().len(), 2);
    // What a reset forgets, what is given stays.
    let mut station = station.restart(&["zero"], 20.0, 8);
    station.ask(9, HostOp::Reset { life: Incarnation::new("next") });
    assert_eq!(station.rows(), [row("zero", 9, true)]);
}

#[test]
fn r22_a_list_in_the_references_form_is_taken_over_once() {
    let mut tables = Tables::default();
    let mut db = Db::load(Tables::default());
    let mut tx = db.begin();
    tx.put::<Meta>("knownRelays".into(), format!("[\"{}\",\"{}\"]", relay("one"), relay("two")).into());
    tx.commit();
    tables.apply(&db.take_changes());
    let station = Station::over(tables, &["two"], RelayLimits::DEFAULT, 5);
    assert_eq!(station.rows(), [row("one", 0, false), row("two", 5, true)]);
    assert_eq!(station.logs(LogLevel::Info).iter().filter(|line| line.contains("took over")).count(), 1);
    let station = station.restart(&[], 20.0, 6);
    assert_eq!(station.logs(LogLevel::Info).iter().filter(|line| line.contains("took over")).count(), 0);
    assert_eq!(station.rows().len(), 2);
}

#[test]
fn r23_a_corrupt_list_is_told_and_left_as_it_is_and_the_kernel_goes_on() {
    let mut tables = Tables::default();
    let mut db = Db::load(Tables::default());
    let mut tx = db.begin();
    tx.put::<Meta>("knownRelays".into(), "[\"/a\",7]".into());
    tx.commit();
    tables.apply(&db.take_changes());
    let station = Station::over(tables, &["two"], RelayLimits::DEFAULT, 5);
    let told = "the stored list of relays may be corrupted: entry 0 is no relay";
    assert_eq!(station.logs(LogLevel::Error), [told]);
    assert_eq!(station.rows(), [row("two", 5, true)]);
    let kept = station.durable.meta.iter().find(|(key, _)| &***key == "knownRelays");
    assert_eq!(kept.map(|(_, text)| &**text), Some("[\"/a\",7]"));
}
