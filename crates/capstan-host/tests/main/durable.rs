//! Durable state of real vats, across restarts of a vat and of the kernel (04 §5).

use crate::support::{call, host, launch, methargs, single, within};
use capstan_host::{Host, Launched};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, VatConfig};
use capstan_model::id::{KRef, ObjectId};

/// Counts its starts and its work; a coordinator keeps the others in its baggage.
const WORKER: &str = "import { E, Far } from '@endo/far';
export const buildRootObject = (_powers, { name }, baggage) => {
  if (!baggage.has('name')) { baggage.init('name', name); baggage.init('starts', 0); baggage.init('work', 0); }
  baggage.set('starts', baggage.get('starts') + 1);
  return Far('root', {
    bootstrap(vats) { for (const other of Object.keys(vats).sort()) if (other !== name) baggage.init(`vat ${other}`, vats[other]); },
    meet(other, ref) { baggage.init(`vat ${other}`, ref); },
    introduce: (who, other) => E(baggage.get(`vat ${who}`)).meet(other, baggage.get(`vat ${other}`)),
    work(n = 1) { baggage.set('work', baggage.get('work') + n); return baggage.get('work'); },
    spread: async () => { const out = []; for (const other of ['ann', 'bob']) out.push(await E(baggage.get(`vat ${other}`)).work()); return harden(out); },
    ask: other => E(baggage.get(`vat ${other}`)).tell(),
    tell: () => harden([baggage.get('name'), baggage.get('starts')]),
  });
};";

fn cluster(names: &[&str]) -> LaunchConfig {
    let vat = |name: &&str| VatConfig {
        name: (*name).into(),
        parameters: Some(format!(r#"{{"name":"{name}"}}"#).into()),
        ..single(WORKER).vats.remove(0)
    };
    LaunchConfig {
        bootstrap: names[0].into(),
        bootstrap_optional: false,
        vats: names.iter().map(vat).collect(),
        ..single(WORKER)
    }
}

async fn restart(host: &Host, launched: &Launched, name: &str) {
    let (_, vat, _) = launched.vats.iter().find(|(known, ..)| &**known == name).unwrap();
    assert_eq!(within(host.request(HostOp::RestartVat(*vat))).await, Ok(Answer::Done));
}

/// Calls and returns the objects named in what the call fulfilled with.
async fn objects(host: &Host, target: ObjectId, method: &str, args: &str) -> Vec<ObjectId> {
    let settled = within(host.send(target.into(), methargs(method, args, &[]))).await.unwrap();
    assert!(!settled.rejected, "{}", settled.value.body);
    let object = |kref: &KRef| match kref {
        KRef::Object(object) => *object,
        KRef::Promise(_) => panic!("{kref} is a promise"),
    };
    settled.value.slots.iter().map(object).collect()
}

async fn sound(host: &Host) {
    let report = within(host.fsck()).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k149_references_in_baggage_work_after_the_kernel_restarts() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let launched = within(first.launch(cluster(&["coordinator", "ann", "bob"]))).await.unwrap();
    assert_eq!(call(&first, launched.root, "spread", "[]", &[]).await, "#[1,1]");
    within(first.stop()).await;

    let again = host(home.path()).await;
    assert_eq!(call(&again, launched.root, "spread", "[]", &[]).await, "#[2,2]");
    assert_eq!(within(again.request(HostOp::Collect)).await.map(|_| ()), Ok(()));
    assert_eq!(call(&again, launched.root, "spread", "[]", &[]).await, "#[3,3]");
    sound(&again).await;
    within(again.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k152_vats_restarted_singly_and_together_know_each_other_and_their_starts() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let launched = within(first.launch(cluster(&["eve", "ann", "bob"]))).await.unwrap();
    call(&first, launched.root, "introduce", r#"["ann","bob"]"#, &[]).await;
    let root = |name: &str| launched.vats.iter().find(|(known, ..)| &**known == name).unwrap().2;
    for name in ["ann", "bob", "eve"] {
        restart(&first, &launched, name).await;
    }
    restart(&first, &launched, "bob").await;
    assert_eq!(call(&first, root("ann"), "ask", r#"["bob"]"#, &[]).await, r##"#["bob",3]"##);
    assert_eq!(call(&first, root("eve"), "ask", r#"["ann"]"#, &[]).await, r##"#["ann",2]"##);
    within(first.stop()).await;

    let again = host(home.path()).await;
    assert_eq!(call(&again, root("ann"), "ask", r#"["bob"]"#, &[]).await, r##"#["bob",4]"##);
    assert_eq!(call(&again, root("eve"), "ask", r#"["ann"]"#, &[]).await, r##"#["ann",3]"##);
    assert_eq!(call(&again, root("eve"), "tell", "[]", &[]).await, r##"#["eve",3]"##);
    within(again.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k153_k154_facets_are_objects_of_their_own_and_share_their_state() {
    let home = tempfile::tempdir().unwrap();
    let host = host(home.path()).await;
    let source = "import { defineExoClassKit, makeExo } from '@endo/exo'; import { M } from '@endo/patterns';
        const Get = M.interface('Get', { get: M.call().returns(M.number()) });
        const makeKit = defineExoClassKit('Temperature', { celsius: M.interface('Celsius', { get: M.call().returns(M.number()), set: M.call(M.number()).returns(M.number()) }), fahrenheit: Get }, c => ({ c }),
          { celsius: { get() { return this.state.c; }, set(c) { this.state.c = c; return c; } }, fahrenheit: { get() { return (this.state.c * 9) / 5 + 32; } } });
        export const buildRootObject = () => makeExo('root', M.interface('Root', { make: M.call(M.number()).returns(M.any()) }), { make: c => makeKit(c) });";
    let root = launch(&host, source).await.root;
    let kit = objects(&host, root, "make", "[100]").await;
    let [celsius, fahrenheit] = kit[..] else { panic!("{kit:?}") };
    assert_ne!(celsius, fahrenheit);
    assert_eq!(call(&host, fahrenheit, "get", "[]", &[]).await, "#212");
    assert_eq!(call(&host, celsius, "set", "[-3]", &[]).await, "#-3");
    assert_eq!(call(&host, celsius, "get", "[]", &[]).await, "#-3");
    assert_eq!(call(&host, fahrenheit, "get", "[]", &[]).await, "#26.6");
    for (target, method, why) in [
        (
            celsius,
            "set",
            r#"In \"set\" method of (Temperature celsius): arg 0: string \"foo\" - Must be a number"#,
        ),
        (fahrenheit, "set", r#"target has no method \"set\""#),
        (root, "make", r#"In \"make\" method of (root): arg 0: string \"foo\" - Must be a number"#),
    ] {
        let settled = within(host.send(target.into(), methargs(method, r#"["foo"]"#, &[]))).await.unwrap();
        assert!(settled.rejected && settled.value.body.contains(why), "{}", settled.value.body);
    }
    within(host.stop()).await;
}

/// Durable counters with two facets, kept in a durable map.
const KEEPER: &str = "import { Far } from '@endo/far';
export const buildRootObject = (_powers, _parameters, baggage) => {
  const provide = (key, make) => { if (!baggage.has(key)) baggage.init(key, make()); return baggage.get(key); };
  const make = VatData.defineDurableKindMulti(provide('kind', () => VatData.makeKindHandle('counter')), () => ({ n: 0, friend: undefined }), {
    up: { bump: ({ state }) => { state.n += 1; return state.n; }, befriend: ({ state }, x) => { state.friend = x; } }, view: { read: ({ state }) => state.n, friend: ({ state }) => state.friend } });
  const all = provide('all', () => VatData.makeScalarBigMapStore('all', { durable: true }));
  return Far('root', { make: name => { all.init(name, make()); return all.get(name); }, get: name => all.get(name), drop: name => all.delete(name), is: (name, up) => all.get(name).up === up });
};";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k158_a_durable_object_keeps_its_kref_when_its_vat_and_the_kernel_restart() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let keeper = launch(&first, KEEPER).await;
    let facets = objects(&first, keeper.root, "make", r#"["x"]"#).await;
    let [up, view] = facets[..] else { panic!("{facets:?}") };
    assert_eq!(call(&first, up, "bump", "[]", &[]).await, "#1");
    restart(&first, &keeper, "main").await;
    assert_eq!(call(&first, up, "bump", "[]", &[]).await, "#2");
    assert_eq!(call(&first, keeper.root, "is", r##"["x","$0"]"##, &[up]).await, "#true");
    within(first.stop()).await;

    let again = host(home.path()).await;
    assert_eq!(call(&again, view, "read", "[]", &[]).await, "#2");
    assert_eq!(call(&again, up, "bump", "[]", &[]).await, "#3");
    assert_eq!(objects(&again, keeper.root, "get", r#"["x"]"#).await, [up, view]);
    sound(&again).await;
    within(again.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k158_what_state_names_lives_until_the_state_goes() {
    let home = tempfile::tempdir().unwrap();
    let first = host(home.path()).await;
    let keeper = launch(&first, KEEPER).await;
    let thing = launch(&first, "import { Far } from '@endo/far'; export const buildRootObject = () => Far('root', { make: () => Far('thing', { hi: () => 'hi' }) });").await;
    let facets = objects(&first, keeper.root, "make", r#"["x"]"#).await;
    let [up, view] = facets[..] else { panic!("{facets:?}") };
    let friend = objects(&first, thing.root, "make", "[]").await[0];
    call(&first, up, "befriend", r##"["$0"]"##, &[friend]).await;
    within(first.stop()).await;

    let again = host(home.path()).await;
    // The thing was ephemeral: its vat forgot it, its name is still the same.
    assert_eq!(objects(&again, view, "friend", "[]").await, [friend]);
    assert_eq!(call(&again, up, "bump", "[]", &[]).await, "#1");
    assert_eq!(call(&again, view, "read", "[]", &[]).await, "#1");
    call(&again, keeper.root, "drop", r#"["x"]"#, &[]).await;
    assert_eq!(within(again.request(HostOp::Collect)).await.map(|_| ()), Ok(()));
    sound(&again).await;
    let left = within(again.query(
        "SELECT * FROM vat_store WHERE key LIKE 'vom.o+d%' OR key LIKE 'vom.es.%' OR key LIKE 'vom.rc.o-%'",
    ))
    .await
    .unwrap();
    assert_eq!(left, []);
    within(again.stop()).await;
}
