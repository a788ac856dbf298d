//! Damaged rows: what cannot be processed is set aside and the rest goes on (02 §3, law L7).

use crate::harness::*;
use capstan_kernel::audit::audit;
use capstan_kernel::host_op::{Answer, DeadLetterView, HostOp, VatView};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, ObjectId, PromiseId};
use capstan_store::schema::{Code, PromiseState, Promises, QueueItem, RunQueue, VatPhase, Vats};

/// Alice asks bob twice, and neither call has reached him when the process dies.
fn two_calls_on_the_queue() -> (World, Launched) {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let Some(bob) = message(delivery).and_then(|m| m.methargs.slots.first()) else {
            return ok(vec![]);
        };
        let mut out = returns(delivery, CapData::data("#1"));
        out.push(send(&bob.to_string(), "first", &[vref("o+10")], Some("p+5")));
        out.push(send(&bob.to_string(), "second", &[vref("o+10")], Some("p+6")));
        ok(out)
    });
    world.hold("bob");
    world.call(vats.root("alice"), "go", &[vats.root("bob").into()]);
    world.log.clear();
    assert_eq!(world.rows::<RunQueue>(), 2);
    (world, vats)
}

fn letters(world: &mut World) -> Vec<DeadLetterView> {
    match world.request(HostOp::ListDeadLetters) {
        Ok(Answer::DeadLetters(letters)) => letters,
        other => panic!("{other:?}"),
    }
}

fn problems(world: &World) -> Vec<String> {
    audit(world.kernel.db().tables()).iter().map(ToString::to_string).collect()
}

fn first_send(tx: &capstan_store::overlay::Tx<'_>) -> (u64, capstan_store::schema::SendItem) {
    match tx.iter::<RunQueue>().next() {
        Some((position, QueueItem::Send(item))) => (*position, item.clone()),
        other => panic!("{other:?}"),
    }
}

/// Looks at the first queue item, which is damaged so that it cannot be processed.
fn set_aside(damage: impl Fn(&mut capstan_store::overlay::Tx<'_>)) -> (World, Launched, DeadLetterView) {
    let (world, vats) = two_calls_on_the_queue();
    assert_eq!(problems(&world), Vec::<String>::new());
    let mut world = world.reboot_damaged(damage);
    assert_eq!(world.methods("bob").last().map(String::as_str), Some("second"));
    assert_eq!(world.rows::<RunQueue>(), 0);
    let [letter] = &letters(&mut world)[..] else { panic!("{:#?}", letters(&mut world)) };
    let letter = letter.clone();
    assert!(!world.call(vats.root("bob"), "still", &[]).0);
    (world, vats, letter)
}

#[test]
fn k40_an_item_that_names_a_missing_object_is_set_aside_and_the_next_is_processed() {
    let missing = KRef::Object(ObjectId(999));
    let (world, _, letter) = set_aside(|tx| {
        let (position, mut item) = first_send(tx);
        item.methargs.slots[0] = missing;
        tx.put::<RunQueue>(position, QueueItem::Send(item));
    });
    assert_eq!(world.methods("bob").first().map(String::as_str), Some("first"));
    assert_eq!(letter.reason, "object ko999 has no record");
    // Its result is rejected all the same, and what else it held is released: only the slot that was
    // overwritten is counted once too often.
    let promises: Vec<_> = world.kernel.db().iter::<Promises>().collect();
    let rejected = promises.iter().filter(|(_, row)| match &row.state {
        PromiseState::Rejected(value) => code(value) == "DELIVERY_FAILED",
        _ => false,
    });
    assert_eq!(rejected.count(), 1, "{promises:#?}");
    assert_eq!(problems(&world).len(), 1, "{:#?}", problems(&world));
    assert!(problems(&world)[0].starts_with("invariant 3: "));
}

#[test]
fn k40_an_item_for_an_object_that_its_vat_does_not_know_is_set_aside() {
    let (world, vats, letter) = set_aside(|tx| {
        use capstan_store::schema::{Objects, Owner};
        let ko = ObjectId(500);
        tx.put::<capstan_store::schema::Counters>("object".into(), 501);
        let bob = tx.iter::<Vats>().find(|(_, row)| &*row.name == "bob").map(|(vat, _)| *vat).unwrap();
        let owner = Some(Owner::Endpoint(EndpointId::Vat(bob)));
        let row = capstan_store::schema::ObjectRow { owner, reachable: 1, recognizable: 1, revoked: false };
        tx.put::<Objects>(ko, row);
        let (position, mut item) = first_send(tx);
        item.target = ko.into();
        tx.put::<RunQueue>(position, QueueItem::Send(item));
    });
    assert_eq!(world.methods("bob"), ["second", "still"]);
    assert_eq!(letter.reason, format!("{} has no entry for ko500", vats.vat("bob")));
}

#[test]
fn k112_a_count_below_zero_is_contained_to_its_crank() {
    let damage = |tx: &mut capstan_store::overlay::Tx<'_>| {
        let (_, item) = first_send(tx);
        tx.update::<Promises, _>(&item.result.unwrap(), |row| row.count = 0).unwrap();
    };
    let (world, _, letter) = set_aside(damage);
    assert!(letter.reason.ends_with("would go out of range"), "{}", letter.reason);
    let found = problems(&world);
    assert!(found.iter().any(|what| what.starts_with("invariant 4: ")), "{found:#?}");
}

#[test]
fn k40_a_notify_of_a_promise_without_record_is_set_aside() {
    let (world, vats, letter) = set_aside(|tx| {
        let (position, _) = first_send(tx);
        let endpoint = EndpointId::Vat(tx.iter::<Vats>().next().map(|(vat, _)| *vat).unwrap());
        tx.put::<RunQueue>(position, QueueItem::Notify { endpoint, promise: PromiseId(999) });
    });
    assert_eq!(letter.reason, "promise kp999 has no record");
    assert!(letter.item.contains("Notify"), "{}", letter.item);
    assert!(world.kernel.db().get::<Vats>(&vats.vat("bob")).is_some());
}

#[test]
fn k40_an_item_of_an_unknown_kind_is_set_aside() {
    let why = "column kind is no kind of queue item: \"riddle\"";
    let (world, _, letter) = set_aside(|tx| {
        let (position, _) = first_send(tx);
        tx.put::<RunQueue>(position, QueueItem::Unreadable(why.into()));
    });
    assert_eq!(letter.reason, format!("a row that cannot be read: {why}"));
    assert_eq!(world.methods("bob"), ["second", "still"]);
}

#[test]
fn k40_gc_work_that_cannot_be_completed_is_set_aside_and_not_tried_for_ever() {
    use capstan_model::peer::Seq;
    use capstan_store::schema::{Clist, ClistRow, GcActions, GcKind};
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    let (bob, missing) = (EndpointId::Vat(vats.vat("bob")), ObjectId(900));
    let mut world = world.reboot_damaged(|tx| {
        let row = ClistRow { eref: vref("o-50").into(), reachable: false, last_mention: Seq(0) };
        tx.put::<Clist>((bob, missing.into()), row);
        tx.update::<Vats, _>(&vats.vat("bob"), |row| row.next_object = 51).unwrap();
        tx.put::<GcActions>((bob, GcKind::RetireImport, missing), ());
    });
    let [letter] = &letters(&mut world)[..] else { panic!("{:#?}", letters(&mut world)) };
    assert_eq!(letter.reason, "object ko900 has no record");
    assert_eq!(world.rows::<GcActions>(), 0);
    assert!(!world.call(vats.root("bob"), "still", &[]).0);
}

#[test]
fn k40_a_thousand_dead_letters_are_kept_and_the_rest_are_counted() {
    use capstan_store::schema::{Counters, DeadLetterRow, DeadLetters};
    let (world, _) = two_calls_on_the_queue();
    let mut world = world.reboot_damaged(|tx| {
        for number in 1..=1000 {
            let row = DeadLetterRow { at: world_time(), item: "x".into(), reason: "y".into() };
            tx.put::<DeadLetters>(number, row);
        }
        tx.put::<Counters>("dead_letter".into(), 1001);
        let (position, _) = first_send(tx);
        tx.put::<RunQueue>(position, QueueItem::Unreadable("x".into()));
    });
    let numbers: Vec<_> = letters(&mut world).iter().map(|letter| letter.number).collect();
    assert_eq!(numbers, (2..=1001).collect::<Vec<_>>());
    let said = "dead letters up to number 1 are not kept any more";
    assert!(world.lines.iter().any(|line| line == said), "{:?}", world.lines);
}

fn world_time() -> capstan_model::peer::Millis {
    capstan_model::peer::Millis(1000)
}

#[test]
fn a_vat_whose_program_is_missing_has_failed_and_the_others_run() {
    let (world, vats) = two_calls_on_the_queue();
    let mut world = world.reboot_damaged(|tx| {
        tx.delete::<Code>(&"hash of bob".into());
    });
    let row = world.kernel.db().get::<Vats>(&vats.vat("bob")).cloned().unwrap();
    assert_eq!(row.phase, VatPhase::Failed("a vat's code is missing".into()));
    assert!(
        problems(&world).iter().any(|what| what.contains("its program is missing")),
        "{:?}",
        problems(&world)
    );
    assert_eq!(code(&world.call(vats.root("bob"), "x", &[]).1), "ENDPOINT_UNREACHABLE");
    assert_eq!(world.rows::<RunQueue>(), 0);
    let views = world.request(HostOp::ListVats);
    let Ok(Answer::Vats(views)) = views else { panic!("{views:?}") };
    let phases: Vec<_> = views.iter().map(|VatView { phase, .. }| phase.as_str()).collect();
    assert_eq!(phases, ["running", "failed"]);
    assert!(world.request(HostOp::RestartVat(vats.vat("bob"))).is_err());
}

#[test]
fn a_crank_that_cannot_be_completed_is_undone_and_its_vat_starts_again() {
    let (mut world, vats) = two_calls_on_the_queue();
    world.script("bob", |delivery| {
        let mut reply = obliging(delivery);
        if method(delivery).as_deref() == Some("first") {
            reply.store.sets.push(("k".into(), "v".into()));
        }
        reply
    });
    let world = world.reboot_damaged(|tx| {
        let (_, item) = first_send(tx);
        tx.update::<Promises, _>(&item.result.unwrap(), |row| row.count = 0).unwrap();
    });
    assert_eq!(world.rows::<capstan_store::schema::VatStore>(), 0);
    let runs: Vec<_> = world.starts.iter().filter(|start| start.vat == vats.vat("bob")).collect();
    assert_eq!(runs.iter().map(|start| start.incarnation.0).collect::<Vec<_>>(), [2, 3]);
    // Both went in one hand-over; what the second did went with the run that answered it.
    assert_eq!(world.methods("bob"), ["first", "second", "second"]);
}

#[test]
fn a_terminated_vat_that_cannot_be_cleaned_up_holds_nobody_up() {
    use capstan_store::schema::{Clist, Objects};
    let mut world = World::new();
    let one = world.launch(&["alice", "bob"]);
    let mut world = world.reboot_damaged(|tx| {
        tx.delete::<Objects>(&one.root("alice"));
    });
    world.request(HostOp::TerminateVat(one.vat("bob"))).expect("terminated");
    // Alice still has an entry for her root, which has no record.
    let ended = world.request(HostOp::TerminateVat(one.vat("alice")));
    assert!(ended.is_err(), "{ended:?}");
    let mut world = world.reboot_damaged(|tx| {
        tx.update::<Vats, _>(&one.vat("alice"), |row| row.phase = VatPhase::Terminated).expect("alice");
    });
    let two = world.launch(&["carol"]);
    world.request(HostOp::TerminateVat(two.vat("carol"))).expect("terminated");
    let left: Vec<_> = world.kernel.db().iter::<Vats>().map(|(vat, _)| *vat).collect();
    assert_eq!(left, [one.vat("alice")]);
    assert!(world.kernel.db().iter::<Clist>().all(|((e, _), _)| *e == EndpointId::Vat(one.vat("alice"))));
    assert_eq!(world.kernel.next_deadline(), None);
    let clean_ups = letters(&mut world);
    let clean_ups = clean_ups.iter().filter(|letter| letter.item.starts_with("clean-up of"));
    assert_eq!(clean_ups.count(), 1);
}

#[test]
fn one_hold_that_cannot_be_released_does_not_keep_the_others() {
    use capstan_store::schema::{HoldKind, Holds};
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |_| ok(vec![]));
    world.request(HostOp::Collect).expect("collected");
    world.send(vats.root("alice"), "x", &[]);
    world.send(vats.root("alice"), "y", &[]);
    world.run();
    let held: Vec<_> = world.kernel.db().iter::<Holds>().map(|(key, _)| *key).collect();
    let [(KRef::Promise(broken), HoldKind::Waiting), (_, HoldKind::Waiting)] = held[..] else {
        panic!("{held:?}")
    };
    let mut world = world.reboot_damaged(|tx| {
        tx.update::<Promises, _>(&broken, |row| row.count = 0).expect("a promise");
    });
    let left: Vec<_> = world.kernel.db().iter::<Holds>().map(|(key, _)| *key).collect();
    assert_eq!(left, [(broken.into(), HoldKind::Waiting)]);
    assert!(letters(&mut world)[0].reason.starts_with("count of"));
}
