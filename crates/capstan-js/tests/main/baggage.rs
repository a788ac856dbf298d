//! Durable state (04 §5) and numbers across incarnations.

use crate::world::{Vat, start_of};
use capstan_model::refs::{VObject, VRef};
use capstan_model::vat::*;

const SOURCE: &str = "import { Far, E } from '@endo/far';
export const buildRootObject = (_powers, _parameters, baggage) => { let held; return Far('root', {
  init: (k, v) => baggage.init(k, v), get: k => baggage.get(k), set: (k, v) => baggage.set(k, v), del: k => baggage.delete(k), has: k => baggage.has(k),
  all: () => [[...baggage.keys()], [...baggage.values()], [...baggage.entries()], baggage.getSize()],
  hold: x => { held = x; }, drop: () => { held = undefined; }, same: x => x === baggage.get('peer'),
  bad: k => baggage.init(k, Far('mine', {})), badPromise: k => baggage.init(k, [Promise.resolve()]), badMap: k => baggage.init(k, new Map()),
  make: () => Far('thing', {}), tell: x => { E(x).hello(); } }); };";

#[test]
fn k148_values_survive_a_restart() {
    let mut vat = Vat::start(SOURCE);
    assert_eq!(vat.answer(r##"#["init",["a",{"n":1}]]"##, &[]), (false, "#\"#undefined\"".into(), vec![]));
    assert!(vat.answer(r##"#["init",["a",2]]"##, &[]).0, "only a new key can be initialised");
    assert!(vat.answer(r##"#["set",["b",2]]"##, &[]).0, "only a known key can be set");
    vat.answer(r##"#["set",["a",["+5"]]]"##, &[]);
    vat.answer(r##"#["init",["z",null]]"##, &[]);
    let mut again = Vat::try_start(start_of(1, SOURCE, VatLimits::default(), vat.rows())).unwrap();
    assert_eq!(
        again.answer(r##"#["all",[]]"##, &[]).1,
        r##"#[["a","z"],[["+5"],null],[["a",["+5"]],["z",null]],2]"##
    );
    assert_eq!(again.answer(r##"#["has",["q"]]"##, &[]).1, "#false");
    again.answer(r##"#["del",["a"]]"##, &[]);
    assert!(again.answer(r##"#["get",["a"]]"##, &[]).0);
}

#[test]
fn k155_each_delivery_reports_exactly_its_changes() {
    let mut vat = Vat::start(SOURCE);
    assert_eq!(
        vat.started.store.sets,
        [
            ("baggageID".into(), "o+d6/1".into()),
            ("idCounters".into(), r#"{"exportID":10,"collectionID":4,"promiseID":5}"#.into())
        ]
    );
    let store = vat.call(r##"#["init",["a",1]]"##, &[]).store;
    assert_eq!(
        store,
        StoreChanges {
            sets: vec![("vc.1.sa".into(), r##"{"body":"#1","slots":[]}"##.into())],
            deletes: vec![]
        }
    );
    assert_eq!(vat.call(r##"#["get",["a"]]"##, &[]).store, StoreChanges::default());
    assert_eq!(
        vat.call(r##"#["del",["a"]]"##, &[]).store,
        StoreChanges { sets: vec![], deletes: vec!["vc.1.sa".into()] }
    );
}

#[test]
fn k157_what_is_not_durable_is_refused_and_an_import_survives() {
    let mut vat = Vat::start(SOURCE);
    for method in ["bad", "badPromise", "badMap"] {
        let reply = vat.call(&format!("#[\"{method}\",[\"x\"]]"), &[]);
        assert_eq!(reply.store, StoreChanges::default());
        assert!(format!("{reply:?}").contains("value is not durable: "), "{reply:?}");
    }
    vat.answer(r##"#["init",["peer","$0.Alleged: peer"]]"##, &["o-4"]);
    assert_eq!(vat.answer(r##"#["same",["$0"]]"##, &["o-4"]).1, "#true");
    let reply = vat.deliver(VatDelivery::BringOutYourDead);
    assert_eq!(reply.syscalls, [], "a stored reference is not dropped");
    let mut again = Vat::try_start(start_of(1, SOURCE, VatLimits::default(), vat.rows())).unwrap();
    assert_eq!(
        again.answer(r##"#["get",["peer"]]"##, &[]),
        (false, "#\"$0.Alleged: peer\"".into(), vec!["o-4".into()])
    );
    again.answer(r##"#["del",["peer"]]"##, &[]);
    let gone = vec![VRef::Object(VObject::Import(4))];
    let reply = again.deliver(VatDelivery::BringOutYourDead);
    assert_eq!(reply.syscalls, [VatSyscall::DropImports(gone.clone()), VatSyscall::RetireImports(gone)]);
}

#[test]
fn numbers_are_never_used_again() {
    let mut vat = Vat::start(SOURCE);
    assert_eq!(vat.answer(r##"#["make",[]]"##, &[]).2, ["o+10"]);
    assert_eq!(vat.answer(r##"#["make",[]]"##, &[]).2, ["o+11"]);
    let mut rows = vat.rows();
    for _ in 0..3 {
        let mut again = Vat::try_start(start_of(1, SOURCE, VatLimits::default(), rows.clone())).unwrap();
        let made: VRef = again.answer(r##"#["make",[]]"##, &[]).2[0].parse().unwrap();
        assert!(
            made > VRef::Object(VObject::Ephemeral(11)) && !format!("{rows:?}").contains(&made.to_string())
        );
        rows = again.rows();
    }
    let reply = Vat::start(SOURCE).call(r##"#["tell",["$0"]]"##, &["o-1"]);
    assert!(
        matches!(&reply.syscalls[0], VatSyscall::Send { message, .. } if message.result == Some("p+5".parse().unwrap())),
        "{reply:?}"
    );
}
