//! Where a message goes (02 §4.1).

use capstan_kernel::host_op::{Answer, HostOp};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId};
use capstan_sim::passable::Passable;
use capstan_sim::scripted;
use capstan_sim::world::{Outcome, Restart, World};
use capstan_store::schema::{
    ChangeSet, Clist, Code, DeadLetters, Decider, PromiseQueue, PromiseState, Promises, RunQueue,
};

#[test]
fn k43_target_slots_and_result_are_translated() {
    let mut world = World::seeded(43);
    let ann = world.kernel("ann");
    let (echo, one, two) = (
        world.vat(ann, scripted::echo()),
        world.vat(ann, scripted::counter()),
        world.vat(ann, scripted::counter()),
    );
    world.pause(ann, echo);
    let call = world.start_call(ann, echo, "list", vec![one.value(), two.value()]);
    world.run_until_quiet();
    let vat = EndpointId::Vat(world.vat_of(ann, echo));
    let db = world.db(ann);
    // While the vat thinks, its item is in flight: what it was told is staged and stored with its answer.
    assert!(db.get::<Clist>(&(vat, KRef::Object(echo))).is_some());
    world.resume(ann, echo);
    world.back_to(call).fulfils(vec![one.value(), two.value()]);
    let db = world.db(ann);
    for imported in [one, two] {
        assert!(db.get::<Clist>(&(vat, imported.into())).is_some(), "{imported}");
    }
    world.assert_quiescent();
}

#[test]
fn k43_the_vat_that_is_called_decides_the_result() {
    let mut world = World::seeded(43);
    let ann = world.kernel("ann");
    let puppet = world.vat(ann, scripted::puppet());
    let call = world.call_with(ann, puppet, "hang", vec!["later".value()]).pending();
    let vat = EndpointId::Vat(world.vat_of(ann, puppet));
    let decided = world.db(ann).iter::<Promises>().filter(|(_, row)| {
        matches!(row.state, PromiseState::Unresolved { decider: Some(Decider::Endpoint(by)), .. } if by == vat)
    });
    assert_eq!(decided.count(), 1);
    world.call_with(ann, puppet, "fulfil", vec!["later".value(), 3.value()]).fulfils(());
    world.back_to(call).fulfils(3);
    world.assert_quiescent();
}

#[test]
fn k44_a_revoked_target_is_not_called() {
    let mut world = World::seeded(44);
    let ann = world.kernel("ann");
    let counter = world.vat(ann, scripted::counter());
    assert_eq!(world.ask(ann, HostOp::Revoke(counter.into())), Ok(Answer::Done));
    world.call(ann, counter, "bump").rejects("[KERNEL:OBJECT_REVOKED]");
    world.call(ann, counter, "bump").rejects("[KERNEL:OBJECT_REVOKED]");
    assert_eq!(world.stored(ann, counter, "sum"), None);
    world.assert_quiescent();
}

#[test]
fn k45_a_target_without_owner_rejects() {
    let mut world = World::seeded(45);
    let ann = world.kernel("ann");
    let (puppet, counter) = (world.vat(ann, scripted::puppet()), world.vat(ann, scripted::counter()));
    world.call_with(ann, puppet, "keep", vec!["c".value(), counter.value()]).fulfils(());
    let vat = world.vat_of(ann, counter);
    assert_eq!(world.ask(ann, HostOp::TerminateVat(vat)), Ok(Answer::Done));
    world
        .call_with(ann, puppet, "call", vec!["c".value(), "bump".value()])
        .rejects("[KERNEL:OBJECT_DELETED]");
    world.assert_quiescent();
}

#[test]
fn k45_an_unknown_kref_rejects_and_leaves_nothing() {
    let mut world = World::seeded(45);
    let ann = world.kernel("ann");
    let before = world.rows(ann);
    world.call(ann, ObjectId(999), "bump").rejects("[KERNEL:OBJECT_DELETED]");
    let counters = ChangeSet { counters: before.counters.clone(), ..world.rows(ann) };
    assert_eq!(counters, before);
    world.assert_quiescent();
}

#[test]
fn k46_an_owner_that_does_not_run_is_unreachable() {
    let mut world = World::seeded(46);
    let ann = world.kernel("ann");
    let counter = world.vat(ann, scripted::counter());
    world.kill(ann);
    let mut broken = ChangeSet::default();
    for (hash, code) in &world.rows(ann).code {
        let mut code = code.clone().unwrap();
        code.text = "no such script".into();
        broken.code.insert(hash.clone(), Some(code));
    }
    world.tamper(ann, &broken);
    world.start(ann);
    world.call(ann, counter, "bump").rejects("[KERNEL:ENDPOINT_UNREACHABLE]");
    assert_ne!(world.db(ann).len::<Code>(), 0);
    world.assert_quiescent();
}

#[test]
fn k48_a_message_to_an_unresolved_promise_is_parked() {
    let mut world = World::seeded(48);
    let ann = world.kernel("ann");
    let (puppet, counter) = (world.vat(ann, scripted::puppet()), world.vat(ann, scripted::counter()));
    let promise = world.call_with(ann, puppet, "promise", vec!["p".value()]).reference();
    let call = world.start_call(ann, promise, "bump", vec![]);
    world.back_to(call).pending();
    let db = world.db(ann);
    assert_eq!((db.len::<RunQueue>(), db.len::<PromiseQueue>()), (0, 1));
    world.assert_audit();
    assert_eq!(world.stored(ann, counter, "sum"), None);
    world.call_with(ann, puppet, "fulfil", vec!["p".value(), counter.value()]).fulfils(());
    world.back_to(call).fulfils(1);
    assert_eq!(world.db(ann).len::<PromiseQueue>(), 0);
    world.assert_quiescent();
}

#[test]
fn k49_a_promise_fulfilled_with_data_takes_no_messages() {
    let mut world = World::seeded(49);
    let ann = world.kernel("ann");
    let puppet = world.vat(ann, scripted::puppet());
    let promise = world.call_with(ann, puppet, "promise", vec!["p".value()]).reference();
    let call = world.start_call(ann, promise, "bump", vec![]);
    world.call_with(ann, puppet, "fulfil", vec!["p".value(), 7.value()]).fulfils(());
    world.back_to(call).rejects("[KERNEL:BAD_PROMISE_RESOLUTION]");
    world.assert_quiescent();
}

#[test]
fn k50_a_rejected_promise_rejects_with_the_identical_value() {
    let mut world = World::seeded(50);
    let ann = world.kernel("ann");
    let puppet = world.vat(ann, scripted::puppet());
    let promise = world.call_with(ann, puppet, "promise", vec!["p".value()]).reference();
    let call = world.start_call(ann, promise, "bump", vec![]);
    world.call_with(ann, puppet, "break", vec!["p".value(), "no luck".value()]).fulfils(());
    world.back_to(call).rejects("no luck");
    let KRef::Promise(promise) = promise else { panic!("not a promise") };
    let reason: CapData<KRef> = CapData::data(r##"#{"#error":"no luck","name":"Error"}"##);
    let row = world.db(ann).get::<Promises>(&promise).unwrap();
    assert_eq!(row.state, PromiseState::Rejected(reason));
    let same = Outcome::Rejected(capstan_model::smallcaps::Value::Error {
        name: "Error".into(),
        message: "no luck".into(),
        error_id: None,
    });
    assert_eq!(world.outcome(call), Some(same));
    world.assert_quiescent();
}

#[test]
fn k51_a_message_without_result_is_dropped_silently() {
    let mut world = World::seeded(51);
    let ann = world.kernel("ann");
    let (puppet, counter) = (world.vat(ann, scripted::puppet()), world.vat(ann, scripted::counter()));
    world.call_with(ann, puppet, "keep", vec!["c".value(), counter.value()]).fulfils(());
    assert_eq!(world.ask(ann, HostOp::Revoke(counter.into())), Ok(Answer::Done));
    let promises = world.db(ann).len::<Promises>();
    world.call_with(ann, puppet, "tell", vec!["c".value(), "bump".value()]).fulfils(());
    let db = world.db(ann);
    assert_eq!((db.len::<RunQueue>(), db.len::<DeadLetters>()), (0, 0));
    assert!(db.len::<Promises>() <= promises + 1);
    world.assert_quiescent();
}

#[test]
fn messages_survive_a_kernel_restart() {
    let mut world = World::seeded(1);
    let ann = world.kernel("ann");
    let counter = world.vat(ann, scripted::counter());
    world.call(ann, counter, "bump").fulfils(1);
    let call = world.start_call(ann, counter, "bump", vec![]);
    world.restart(ann, Restart::Keep);
    assert_eq!(world.outcome(call), Some(Outcome::Died));
    world.call(ann, counter, "bump").fulfils(2);
    world.assert_quiescent();
}
