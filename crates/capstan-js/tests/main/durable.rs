//! Durable and virtual objects (04 §5): identity, facets, state, counts, collection.

use crate::world::{Vat, cap, start_of};
use capstan_model::capdata::{Message, Resolution};
use capstan_model::refs::VRef;
use capstan_model::vat::*;

const SOURCE: &str = "import { Far, E } from '@endo/far';
const provide = (baggage, key, make) => { if (!baggage.has(key)) baggage.init(key, make()); return baggage.get(key); };
const attempt = f => { try { return f(); } catch (e) { return e.message; } };
export const buildRootObject = (powers, _parameters, baggage) => {
  if (powers.VatData !== VatData) throw Error('two VatData');
  const counterHandle = provide(baggage, 'counterHandle', () => VatData.makeKindHandle('counter'));
  const makeCounter = VatData.defineDurableKind(counterHandle, (n = 0, friend) => ({ n, friend }), {
    bump: ({ state }, by = 1) => { state.n += by; return state.n; }, read: ({ state }) => state.n, me: ({ self }) => self,
    befriend: ({ state }, x) => { state.friend = x; }, friend: ({ state }) => state.friend,
  }, { finish: ({ state, self }) => { if (state.n === 777) baggage.init('lucky', self); } });
  const pairHandle = provide(baggage, 'pairHandle', () => VatData.makeKindHandle('pair'));
  const makePair = VatData.defineDurableKindMulti(pairHandle, v => ({ v }), {
    reader: { get: ({ state }) => state.v, other: ({ facets }) => facets.writer }, writer: { put: ({ state }, v) => { state.v = v; } } });
  const makeGhost = VatData.defineKind('ghost', x => ({ x, count: 0 }), { see: ({ state }) => { state.count += 1; return [state.x, state.count]; } });
  const watcher = VatData.providePromiseWatcher(provide(baggage, 'watchHandle', () => VatData.makeKindHandle('watch')),
    (v, note) => { baggage.init(`seen ${note}`, v); }, (e, note) => { baggage.init(`lost ${note}`, e.message); });
  const weak = provide(baggage, 'weak', () => VatData.makeScalarBigWeakMapStore('weak', { durable: true }));
  const seen = new WeakMap(); let kept; let ghosts;
  return Far('root', {
    make: (...args) => makeCounter(...args), save: (k, ...args) => { baggage.init(k, makeCounter(...args)); }, load: k => baggage.get(k), del: k => baggage.delete(k),
    bump: k => baggage.get(k).bump(), same: (k, x) => x === baggage.get(k) && x.me() === x, keep: x => { kept = x; }, lose: () => { kept = undefined; },
    pair: v => makePair(v), savePair: (k, v) => { baggage.init(k, makePair(v)); },
    mark: (k, v) => { seen.set(baggage.get(k), v); }, marked: k => seen.get(baggage.get(k)),
    many: (n, from) => { const all = VatData.makeScalarBigMapStore('all', { durable: true }); for (let i = 0; i < n; i += 1) all.init(i, makeCounter(i)); baggage.init('all', all); },
    pick: i => baggage.get('all').get(i).bump(),
    chain: n => { let x; for (let i = 0; i < n; i += 1) x = makeCounter(i, x); baggage.init('chain', x); },
    ghost: x => { kept = makeGhost(x); return kept; },
    ghosts: (n, x) => { ghosts = VatData.makeScalarBigMapStore('ghosts'); for (let i = 0; i < n; i += 1) ghosts.init(i, makeGhost(x)); },
    haunt: i => ghosts.get(i).see(), exorcise: () => { ghosts = undefined; },
    weakly: (k, v) => { weak.init(k, v); }, weakGet: k => weak.has(k) && weak.get(k),
    errors: x => [attempt(() => baggage.init('g', makeGhost(1))), attempt(() => makeCounter(Far('mine', {}))), attempt(() => baggage.get('c').befriend(Promise.resolve())),
      attempt(() => VatData.defineDurableKind(counterHandle, () => ({}), {})), attempt(() => VatData.defineKindMulti('x', () => ({}), { a: {} })), attempt(() => makeCounter.call(0).bump.call({})),
      VatData.canBeDurable(x), VatData.canBeDurable(Far('y', {})), VatData.canBeDurable(makeGhost(1)), VatData.canBeDurable(makeCounter()), VatData.canBeDurable([1n, 'a'])],
    ask: (x, note) => { VatData.watchPromise(E(x).q(), watcher, note); }, wait: (p, note) => { VatData.watchPromise(p, watcher, note); },
    alone: note => { VatData.watchPromise(new Promise(() => {}), watcher, note); },
  });
};";

fn restart(vat: &Vat) -> Vat {
    Vat::try_start(start_of(1, SOURCE, VatLimits::default(), vat.rows())).unwrap()
}

fn refs(list: &[&str]) -> Vec<VRef> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// Calls an export; returns the body of its answer.
fn ask(vat: &mut Vat, target: &str, methargs: &str, slots: &[&str]) -> String {
    let result: VRef = "p-9999".parse().unwrap();
    let message = Message { methargs: cap(methargs, slots), result: Some(result) };
    let reply = vat.deliver(VatDelivery::Message { target: target.parse().unwrap(), message });
    assert_eq!(reply.outcome, Ok(()));
    let resolved = reply.syscalls.iter().find_map(|syscall| match syscall {
        VatSyscall::Resolve(batch) => batch.iter().find(|r| r.promise == result),
        _ => None,
    });
    resolved.unwrap_or_else(|| panic!("no answer in {reply:?}")).value.body.to_string()
}

#[test]
fn k158_a_durable_object_keeps_its_name_and_state_across_restarts() {
    let mut vat = Vat::start(SOURCE);
    vat.answer(r##"#["save",["c",40]]"##, &[]);
    let (_, body, slots) = vat.answer(r##"#["load",["c"]]"##, &[]);
    assert_eq!((body.as_str(), slots.len()), ("#\"$0.Alleged: counter\"", 1));
    assert!(slots[0].starts_with("o+d"), "{slots:?}");
    assert_eq!(ask(&mut vat, &slots[0], r##"#["bump",[]]"##, &[]), "#41");
    let mut again = restart(&vat);
    // At once under its old name, and it is what the baggage has.
    assert_eq!(ask(&mut again, &slots[0], r##"#["bump",[]]"##, &[]), "#42");
    assert_eq!(again.answer(r##"#["same",["c","$0"]]"##, &[&slots[0]]).1, "#true");
    assert_eq!(again.answer(r##"#["load",["c"]]"##, &[]).2, slots);
    // Numbers of instances are not used again.
    let made = again.answer(r##"#["make",[]]"##, &[]).2;
    assert!(!format!("{:?}", vat.rows).contains(&made[0]), "{made:?}");
}

#[test]
fn k154_facets_share_state_and_are_objects_of_their_own() {
    let mut vat = Vat::start(SOURCE);
    let (_, body, slots) = vat.answer(r##"#["pair",[1]]"##, &[]);
    assert_eq!(body, r##"#{"reader":"$0.Alleged: pair reader","writer":"$1.Alleged: pair writer"}"##);
    let base = slots[0].trim_end_matches(":0").to_owned();
    assert_eq!(slots, [format!("{base}:0"), format!("{base}:1")]);
    assert_eq!(ask(&mut vat, &slots[1], r##"#["put",[{"x":2}]]"##, &[]), "#\"#undefined\"");
    assert_eq!(ask(&mut vat, &slots[0], r##"#["get",[]]"##, &[]), r##"#{"x":2}"##);
    assert!(
        ask(&mut vat, &slots[0], r##"#["put",[3]]"##, &[]).contains("target has no method"),
        "facets do not mix"
    );
    assert_eq!(ask(&mut restart(&vat), &slots[0], r##"#["other",[]]"##, &[]), "#\"$0.Alleged: pair writer\"");
}

#[test]
fn k157_what_is_not_durable_cannot_be_part_of_durable_state() {
    let mut vat = Vat::start(SOURCE);
    vat.answer(r##"#["save",["c",1]]"##, &[]);
    let rows = vat.rows.clone();
    let (rejected, body, _) = vat.answer(r##"#["errors",["$0.Alleged: x"]]"##, &["o-3"]);
    assert!(!rejected);
    assert_eq!(
        body,
        r##"#["value is not durable: Alleged: ghost","value is not durable: Alleged: mine","value is not durable: a promise","redefinition of durable kind \"counter\"","x: a kind with facets must have more than one","In \"bump\" method of (counter) may only be applied to a valid instance",true,false,false,true,true]"##
    );
    vat.deliver(VatDelivery::BringOutYourDead);
    // The two counters made on the way have left nothing but their numbers.
    let ignoring = |rows: &std::collections::BTreeMap<_, _>| -> Vec<String> {
        rows.iter()
            .filter(|(key, _): &(&std::sync::Arc<str>, _)| {
                !key.contains("idCounters") && !key.contains("dkind")
            })
            .map(|row| format!("{row:?}"))
            .collect()
    };
    assert_eq!(ignoring(&vat.rows), ignoring(&rows));
}

#[test]
fn an_object_that_nothing_names_is_buried_with_what_it_alone_named() {
    let mut vat = Vat::start(SOURCE);
    let rows = vat.rows.len();
    vat.answer(r##"#["chain",[300]]"##, &[]);
    assert!(vat.rows.len() > rows + 300);
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).store, StoreChanges::default());
    let mut vat = restart(&vat);
    vat.answer(r##"#["del",["chain"]]"##, &[]);
    let reply = vat.deliver(VatDelivery::BringOutYourDead);
    assert_eq!((reply.outcome, reply.syscalls), (Ok(()), vec![]));
    assert_eq!(vat.rows.len(), rows);
}

#[test]
fn an_import_named_by_state_is_kept_until_the_state_goes() {
    let mut vat = Vat::start(SOURCE);
    vat.answer(r##"#["save",["c",1,"$0.Alleged: x"]]"##, &["o-5"]);
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls, []);
    let mut vat = restart(&vat);
    assert_eq!(vat.answer(r##"#["load",["c"]]"##, &[]).2.len(), 1);
    vat.answer(r##"#["del",["c"]]"##, &[]);
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls, [], "the kernel still reaches it");
    let counter: Vec<_> =
        vat.rows.keys().filter_map(|key| key.strip_prefix("vom.es.")).map(str::to_owned).collect();
    let counter = refs(&[&counter[0]]);
    vat.deliver(VatDelivery::DropExports(counter.clone()));
    assert_eq!(
        vat.deliver(VatDelivery::BringOutYourDead).syscalls,
        [
            VatSyscall::DropImports(refs(&["o-5"])),
            VatSyscall::RetireImports(refs(&["o-5"])),
            VatSyscall::RetireExports(counter),
        ]
    );
    assert!(!vat.rows.keys().any(|key| key.starts_with("vom.rc.o-")), "{:?}", vat.rows);
}

#[test]
fn what_only_memory_held_goes_with_the_run() {
    let mut vat = Vat::start(SOURCE);
    let rows = vat.rows.len();
    let made = vat.answer(r##"#["make",[5]]"##, &[]).2;
    vat.deliver(VatDelivery::DropExports(refs(&[&made[0]])));
    vat.deliver(VatDelivery::RetireExports(refs(&[&made[0]])));
    let mut vat = restart(&vat);
    assert_eq!(vat.deliver(VatDelivery::BringOutYourDead).syscalls, []);
    assert_eq!(vat.rows.len(), rows);
}

#[test]
fn virtual_objects_page_in_and_out_and_end_with_the_run() {
    let mut vat = Vat::start(SOURCE);
    let reply = vat.call(r##"#["ghosts",[500,"$0.Alleged: x"]]"##, &["o-5"]);
    assert!(reply.store.sets.iter().all(|(key, _)| !key.contains("o+v")), "{:?}", reply.store);
    assert_eq!(vat.answer(r##"#["haunt",[7]]"##, &[]).1, "#[\"$0.Alleged: x\",1]");
    vat.deliver(VatDelivery::BringOutYourDead);
    assert_eq!(vat.answer(r##"#["haunt",[7]]"##, &[]).1, "#[\"$0.Alleged: x\",2]");
    let ghost = vat.answer(r##"#["ghost",[1]]"##, &[]).2;
    assert!(ghost[0].starts_with("o+v"), "{ghost:?}");
    assert_eq!(ask(&mut vat, &ghost[0], r##"#["see",[]]"##, &[]), "#[1,1]");
    vat.answer(r##"#["exorcise",[]]"##, &[]);
    assert_eq!(
        vat.deliver(VatDelivery::BringOutYourDead).syscalls,
        [VatSyscall::DropImports(refs(&["o-5"])), VatSyscall::RetireImports(refs(&["o-5"]))]
    );
    vat.answer(r##"#["lose",[]]"##, &[]);
    vat.deliver(VatDelivery::DropExports(refs(&[&ghost[0]])));
    assert_eq!(
        vat.deliver(VatDelivery::BringOutYourDead).syscalls,
        [VatSyscall::RetireExports(refs(&[&ghost[0]]))]
    );
}

#[test]
fn a_weak_map_knows_an_object_that_was_out_of_memory() {
    let mut vat = Vat::start(SOURCE);
    vat.answer(r##"#["save",["c",1]]"##, &[]);
    vat.answer(r##"#["mark",["c","yes"]]"##, &[]);
    vat.deliver(VatDelivery::BringOutYourDead);
    assert_eq!(vat.answer(r##"#["marked",["c"]]"##, &[]).1, "#\"yes\"");
}

#[test]
fn a_weak_collection_lets_its_key_be_dropped_and_forgets_a_retired_one() {
    let mut vat = Vat::start(SOURCE);
    vat.answer(r##"#["weakly",["$0.Alleged: x",["v","$1.Alleged: y"]]]"##, &["o-5", "o-6"]);
    let reply = vat.deliver(VatDelivery::BringOutYourDead);
    assert_eq!(reply.syscalls, [VatSyscall::DropImports(refs(&["o-5"]))], "still recognised");
    let mut vat = restart(&vat);
    assert_eq!(vat.answer(r##"#["weakGet",["$0"]]"##, &["o-5"]).1, "#[\"v\",\"$0.Alleged: y\"]");
    vat.deliver(VatDelivery::BringOutYourDead);
    vat.deliver(VatDelivery::RetireImports(refs(&["o-5"])));
    assert_eq!(
        vat.deliver(VatDelivery::BringOutYourDead).syscalls,
        [VatSyscall::DropImports(refs(&["o-6"])), VatSyscall::RetireImports(refs(&["o-6"]))]
    );
    assert_eq!(vat.answer(r##"#["weakGet",["$0"]]"##, &["o-7"]).1, "#false");
}

#[test]
fn a_kind_must_be_defined_again() {
    let vat = Vat::start(SOURCE);
    let without = "import { Far } from '@endo/far'; export const buildRootObject = () => Far('root', {});";
    let why = Vat::try_start(start_of(1, without, VatLimits::default(), vat.rows())).map(|_| ()).unwrap_err();
    assert_eq!(why, "defineDurableKind not called for tags: [counter, pair, watch]");
    let durable_root =
        "export const buildRootObject = () => VatData.makeScalarBigMapStore('x', { durable: true });";
    let why =
        Vat::try_start(start_of(1, durable_root, VatLimits::default(), vec![])).map(|_| ()).unwrap_err();
    assert!(why.contains("must return a new object"), "{why}");
}

#[test]
fn a_watcher_hears_of_a_promise_in_a_later_run() {
    let mut vat = Vat::start(SOURCE);
    let reply = vat.call(r##"#["ask",["$0.Alleged: x","ann"]]"##, &["o-5"]);
    let VatSyscall::Send { message, .. } = &reply.syscalls[0] else { panic!("{reply:?}") };
    let answer = message.result.unwrap();
    vat.call(r##"#["wait",["&0","bob"]]"##, &["p-70"]);
    vat.call(r##"#["alone",["eve"]]"##, &[]);
    let mut vat = restart(&vat);
    assert_eq!(
        vat.answer(r##"#["load",["lost eve"]]"##, &[]).1,
        "#\"[KERNEL:VAT_TERMINATED] vat restarted\""
    );
    let settled = |promise, rejected, body: &str| Resolution { promise, rejected, value: cap(body, &[]) };
    let broken = r##"#{"#error":"no","name":"Error"}"##;
    let batch = vec![settled(answer, false, "#5"), settled("p-70".parse().unwrap(), true, broken)];
    assert_eq!(vat.deliver(VatDelivery::Notify(batch)).outcome, Ok(()));
    assert_eq!(vat.answer(r##"#["load",["seen ann"]]"##, &[]).1, "#5");
    assert_eq!(vat.answer(r##"#["load",["lost bob"]]"##, &[]).1, "#\"no\"");
    assert!(!vat.rows.keys().any(|key| key.starts_with("vom.pw.")));
}

#[test]
fn many_instances_do_not_fill_the_heap() {
    // A hundred thousand in 64 MiB, scaled to what a test may take.
    let limits = VatLimits { memory_bytes_max: 6 << 20, crank_deadline_ms: 60_000, ..VatLimits::default() };
    let mut vat = Vat::try_start(start_of(1, SOURCE, limits, vec![])).unwrap();
    assert_eq!(vat.call(r##"#["many",[8000]]"##, &[]).outcome, Ok(()));
    let mut again = Vat::try_start(start_of(1, SOURCE, limits, vat.rows())).unwrap();
    assert_eq!(again.answer(r##"#["pick",[7999]]"##, &[]).1, "#8000");
    assert_eq!(again.deliver(VatDelivery::BringOutYourDead).syscalls, []);
}
