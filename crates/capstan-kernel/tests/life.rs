//! Vats: restart, termination, death (02 §9).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp, Refusal, VatView};
use capstan_kernel::input::Input;
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef, VatId};
use capstan_model::refs::VRef;
use capstan_model::vat::{StoreChanges, VatDelivery, VatFault, VatIncarnation, VatReply, VatStarted};
use capstan_store::schema::{
    Clist, ClistByEref, Code, GcActions, Objects, Promises, Reaps, Subclusters, VatStore, Vats,
};

fn views(world: &mut World) -> Vec<VatView> {
    match world.request(HostOp::ListVats) {
        Ok(Answer::Vats(vats)) => vats,
        other => panic!("{other:?}"),
    }
}

#[test]
fn k117_a_launched_vat_has_a_root_a_program_and_a_place() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    let (vat, root) = (vats.vat("alice"), vats.root("alice"));
    let expected = VatView {
        vat,
        name: "alice".into(),
        subcluster: vats.subcluster,
        phase: "running".into(),
        failure: None,
        root: Some(root),
        source: "alice".into(),
        incarnation: 1,
    };
    assert_eq!(views(&mut world), [expected]);
    let key = (EndpointId::Vat(vat), VRef::ROOT.into());
    assert_eq!(world.kernel.db().get::<ClistByEref>(&key), Some(&KRef::Object(root)));
    assert_eq!(world.rows::<Code>(), 1);
}

#[test]
fn k120_k130_a_terminated_vat_leaves_nothing() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| VatReply {
        store: StoreChanges { sets: vec![("k".into(), "v".into())], deletes: vec![] },
        ..obliging(delivery)
    });
    world.call(vats.root("alice"), "write", &[vats.root("bob").into()]);
    assert_eq!(world.request(HostOp::TerminateVat(vats.vat("alice"))), Ok(Answer::Done));
    assert_eq!(views(&mut world).len(), 1);
    assert_eq!(code(&world.call(vats.root("alice"), "x", &[]).1), "OBJECT_DELETED");
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
    assert_eq!((world.rows::<VatStore>(), world.rows::<Code>(), world.rows::<Vats>()), (0, 1, 1));
    let entries = world.kernel.db().iter::<Clist>();
    assert_eq!(entries.filter(|((e, _), _)| *e == EndpointId::Vat(vats.vat("alice"))).count(), 0);
    assert!(world.stops.contains(&(vats.vat("alice"), VatIncarnation(1))));
}

#[test]
fn k121_unknown_vats_are_refused() {
    let mut world = World::new();
    let vat = VatId(7);
    for op in [HostOp::TerminateVat(vat), HostOp::RestartVat(vat), HostOp::PingVat(vat)] {
        assert_eq!(world.request(op), Err(Refusal::VatNotFound(vat)));
    }
}

#[test]
fn k131_a_running_vat_is_pinged() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    assert_eq!(world.request(HostOp::PingVat(vats.vat("alice"))), Ok(Answer::Done));
}

#[test]
fn k123_a_restart_keeps_id_root_and_store_and_does_not_bootstrap() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| VatReply {
        store: StoreChanges { sets: vec![("k".into(), "v".into())], deletes: vec![] },
        ..obliging(delivery)
    });
    world.call(vats.root("alice"), "write", &[]);
    world.log.clear();
    assert_eq!(world.request(HostOp::RestartVat(vats.vat("alice"))), Ok(Answer::Done));
    let start = world.starts.last().expect("started");
    assert_eq!((start.vat, start.incarnation), (vats.vat("alice"), VatIncarnation(2)));
    assert_eq!(start.store, [("k".into(), "v".into())]);
    assert_eq!(world.stops, [(vats.vat("alice"), VatIncarnation(1))]);
    assert!(world.methods("alice").is_empty());
    assert!(!world.call(vats.root("alice"), "x", &[]).0);
}

#[test]
fn k124_a_restart_that_fails_can_be_repeated() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.broken.insert("alice".into(), "syntax".into());
    let failed = Err(Refusal::VatNotRunning("syntax".into()));
    assert_eq!(world.request(HostOp::RestartVat(vats.vat("alice"))), failed);
    assert_eq!(world.request(HostOp::RestartVat(vats.vat("alice"))), failed);
    assert_eq!(views(&mut world)[0].failure, Some("syntax".into()));
    world.broken.clear();
    assert_eq!(world.request(HostOp::RestartVat(vats.vat("alice"))), Ok(Answer::Done));
    assert!(!world.call(vats.root("alice"), "x", &[]).0);
}

#[test]
fn k125_ephemeral_objects_of_a_restarted_vat_are_gone_and_durable_ones_are_not() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("ephemeral") => ok(returns(delivery, reference(vref("o+10")))),
        Some("virtual") => ok(returns(delivery, reference(vref("o+v3/1")))),
        Some("durable") => ok(returns(delivery, reference(vref("o+d4/1:0")))),
        _ => obliging(delivery),
    });
    let mut made = |method: &str| world.call(vats.root("alice"), method, &[]).1.slots[0];
    let (ephemeral, virtual_, durable) = (made("ephemeral"), made("virtual"), made("durable"));
    world.request(HostOp::RestartVat(vats.vat("alice"))).expect("restarted");
    assert_eq!(code(&world.call(ephemeral, "x", &[]).1), "OBJECT_DELETED");
    assert_eq!(code(&world.call(virtual_, "x", &[]).1), "OBJECT_DELETED");
    assert!(!world.call(durable, "x", &[]).0);
    assert!(!world.call(vats.root("alice"), "x", &[]).0);
    assert_eq!(views(&mut world)[0].phase, "running");
}

#[test]
fn messages_wait_for_a_vat_that_starts_again() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.hold("alice");
    let requests: Vec<_> = (0..3).map(|i| world.send(vats.root("alice"), &format!("m{i}"), &[])).collect();
    world.ask(HostOp::RestartVat(vats.vat("alice")));
    world.lose("alice");
    let last = world.send(vats.root("alice"), "m3", &[]);
    world.run();
    assert_eq!(world.methods("alice"), ["m0", "m1", "m2", "m3"]);
    assert!(requests.iter().chain([&last]).all(|request| !world.settled(*request).0));
}

#[test]
fn k126_a_host_call_into_a_terminated_vat_rejects() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.hold("alice");
    let flying = world.send(vats.root("alice"), "x", &[]);
    let waiting = world.send(vats.root("alice"), "y", &[]);
    world.request(HostOp::TerminateVat(vats.vat("alice"))).expect("terminated");
    world.run();
    assert!(world.settled(flying).0 && world.settled(waiting).0);
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
}

#[test]
fn k127_a_third_vat_hears_of_two_that_end() {
    let mut world = World::new();
    let vats = world.launch(&["carol", "alice", "bob"]);
    for name in ["alice", "bob"] {
        world.script(name, |_| ok(vec![]));
    }
    world.script("carol", |delivery| match message(delivery) {
        Some(m) => {
            let mut out = returns(delivery, CapData::data("#1"));
            for (i, other) in m.methargs.slots.iter().enumerate() {
                let p = format!("p+{}", 5 + i);
                out.push(send(&other.to_string(), "never", &[], Some(&p)));
                out.push(capstan_model::vat::VatSyscall::Subscribe(vref(&p)));
            }
            ok(out)
        }
        None => ok(vec![]),
    });
    world.call(vats.root("carol"), "go", &[vats.root("alice").into(), vats.root("bob").into()]);
    world.log.clear();
    world.ask(HostOp::TerminateVat(vats.vat("alice")));
    world.ask(HostOp::TerminateVat(vats.vat("bob")));
    world.run();
    assert_eq!(world.delivered("carol").len(), 2);
}

#[test]
fn k129_clean_up_of_much_goes_in_slices_and_survives_a_kill() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => {
            let slots: Vec<_> = (10..460).map(|i| vref(&format!("o+{i}"))).collect();
            ok(returns(delivery, CapData { body: "#[]".into(), slots }))
        }
        _ => obliging(delivery),
    });
    world.call(vats.root("alice"), "make", &[]);
    let left = |world: &World| {
        let all = world.kernel.db().iter::<Clist>();
        all.filter(|((e, _), _)| *e == EndpointId::Vat(vats.vat("alice"))).count()
    };
    let whole = left(&world);
    world.ask(HostOp::TerminateVat(vats.vat("alice")));
    assert!(left(&world) >= whole - 100 && left(&world) < whole);
    // Others go on between the slices, and so does the clean-up while nothing else happens.
    let request = world.send(vats.root("bob"), "x", &[]);
    assert!(left(&world) >= whole - 200);
    let mut world = world.reboot();
    world.run();
    assert_eq!(left(&world), 0);
    assert!(!world.answers.contains_key(&request));
    assert_eq!(world.methods("bob"), ["x"]);
}

#[test]
fn k33_k132_a_dead_worker_is_replaced_once_and_then_ends_its_vat_and_no_other() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    let mut deaths = 1;
    world.script("alice", move |delivery| {
        if deaths > 0 {
            deaths -= 1;
            return fault(VatFault::WorkerDied("gone".into()));
        }
        obliging(delivery)
    });
    assert!(!world.call(vats.root("alice"), "x", &[]).0);
    assert_eq!(world.starts.last().map(|start| start.incarnation), Some(VatIncarnation(2)));
    world.script("alice", |_| fault(VatFault::WorkerDied("gone".into())));
    let (rejected, value) = world.call(vats.root("alice"), "y", &[]);
    assert!(rejected && value.body.contains("[KERNEL:VAT_FATAL:INTERNAL_ERROR] gone"), "{}", value.body);
    assert_eq!(views(&mut world).len(), 1);
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
}

#[test]
fn k132_k133_a_stopped_worker_ends_its_vat_and_no_other() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.hold("alice");
    let request = world.send(vats.root("alice"), "loop", &[]);
    let behind = world.send(vats.root("alice"), "behind", &[]);
    world.run();
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
    let fault = VatFault::Limit("deadline of 10000 ms".into());
    let (vat, incarnation) = (vats.vat("alice"), VatIncarnation(1));
    world.input(Input::VatDied { vat, incarnation, fault });
    world.run();
    assert!(world.settled(request).1.body.contains("deadline of 10000 ms"));
    assert!(world.settled(behind).0);
    // What the dead run still says is not believed.
    world.release("alice");
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
}

#[test]
fn k122_termination_does_not_wait_for_the_worker_and_what_it_still_says_is_lost() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| VatReply {
        store: StoreChanges { sets: vec![("k".into(), "v".into())], deletes: vec![] },
        ..obliging(delivery)
    });
    world.hold("alice");
    let flying = world.send(vats.root("alice"), "x", &[]);
    assert_eq!(world.request(HostOp::TerminateVat(vats.vat("alice"))), Ok(Answer::Done));
    assert_eq!(views(&mut world).len(), 1);
    world.release("alice");
    assert!(world.settled(flying).0);
    assert_eq!((world.rows::<VatStore>(), world.rows::<Vats>()), (0, 1));
}

#[test]
fn a_failed_vat_hears_what_was_settled_meanwhile_once_it_runs_again() {
    use capstan_model::vat::VatSyscall;
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => {
            let slots = vec![vref("p+5"), vref("p+6")];
            ok(returns(delivery, CapData { body: "#[\"&0\",\"&1\"]".into(), slots }))
        }
        Some("one") => ok(vec![fulfil(vref("p+5"), CapData::data("#5"))]),
        Some("two") => ok(vec![fulfil(vref("p+6"), CapData::data("#6"))]),
        _ => obliging(delivery),
    });
    world.script("bob", |delivery| {
        let mut out = returns(delivery, CapData::data("#1"));
        let slots = message(delivery).map(|m| m.methargs.slots.clone()).unwrap_or_default();
        out.extend(slots.into_iter().map(VatSyscall::Subscribe));
        ok(out)
    });
    let promises = world.call(vats.root("alice"), "make", &[]).1.slots;
    world.call(vats.root("bob"), "wait", &promises);
    // One promise settles while bob is busy, the other while he does not run; a call waits for him, too.
    world.hold("bob");
    world.send(vats.root("bob"), "busy", &[]);
    world.send(vats.root("alice"), "one", &[]);
    let waiting = world.send(vats.root("bob"), "waits", &[]);
    world.run();
    world.broken.insert("bob".into(), "no".into());
    world.request(HostOp::RestartVat(vats.vat("bob"))).expect_err("broken");
    world.lose("bob");
    world.send(vats.root("alice"), "two", &[]);
    world.run();
    // Calls do not wait for a vat that has failed.
    assert_eq!(code(&world.settled(waiting).1), "ENDPOINT_UNREACHABLE");
    world.request(HostOp::RestartVat(vats.vat("bob"))).expect_err("still broken");
    world.broken.clear();
    world.log.clear();
    world.request(HostOp::RestartVat(vats.vat("bob"))).expect("runs");
    let told: Vec<_> = world
        .delivered("bob")
        .into_iter()
        .filter_map(|delivery| match delivery {
            VatDelivery::Notify(batch) => Some(batch[0].value.body.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["#5", "#6"]);
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
}

#[test]
fn whoever_waits_for_a_restart_hears_that_the_vat_has_ended() {
    for whole in [false, true] {
        let mut world = World::new();
        let vats = world.launch(&["alice"]);
        let vat = vats.vat("alice");
        let restart = world.ask(HostOp::RestartVat(vat));
        let end =
            if whole { HostOp::TerminateSubcluster(vats.subcluster) } else { HostOp::TerminateVat(vat) };
        assert_eq!(world.request(end), Ok(Answer::Done));
        assert_eq!(world.answers[&restart], Err(Refusal::VatNotFound(vat)));
    }
}

#[test]
fn a_run_that_was_replaced_cannot_fail_the_next() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    let vat = vats.vat("alice");
    world.request(HostOp::RestartVat(vat)).expect("restarted");
    let fault = VatFault::Limit("late".into());
    world.input(Input::VatDied { vat, incarnation: VatIncarnation(1), fault });
    assert!(!world.call(vats.root("alice"), "x", &[]).0);
}

#[test]
fn k119_a_vat_that_runs_is_not_run_again() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    let vat = vats.vat("alice");
    // Another report of a start, of this run or of one that never was, changes nothing.
    for (incarnation, name) in [(1, "o+11"), (2, "o+12")] {
        let started = VatStarted {
            syscalls: vec![send("o+0", "again", &[vref(name)], None)],
            store: StoreChanges { sets: vec![("k".into(), "v".into())], deletes: vec![] },
            root_methods: vec![],
        };
        let incarnation = VatIncarnation(incarnation);
        world.input(Input::VatStarted { vat, incarnation, result: Ok(started) });
        world.input(Input::VatStarted { vat, incarnation, result: Err("late".into()) });
    }
    world.run();
    assert!(world.methods("alice").is_empty() && world.rows::<VatStore>() == 0);
    assert_eq!(views(&mut world)[0].phase, "running");
    // A launch never takes the name of a vat that was there before.
    world.request(HostOp::TerminateVat(vat)).expect("terminated");
    let again = world.launch(&["alice"]).vat("alice");
    assert_eq!((vat, again), (VatId(1), VatId(2)));
}

#[test]
fn k121_restarting_a_vat_that_is_being_launched_is_refused() {
    let mut world = World::new();
    world.ask(World::launch_op(&["alice"]));
    let outcome = world.ask(HostOp::RestartVat(VatId(1)));
    assert!(matches!(world.answers.get(&outcome), Some(Err(Refusal::VatNotRunning(_)))));
}

#[test]
fn k128_all_vats_end_the_last_started_first() {
    let mut world = World::new();
    let one = world.launch(&["alice", "bob"]);
    let two = world.launch(&["carol", "dave"]);
    world.call(one.root("alice"), "x", &[two.root("dave").into(), one.root("bob").into()]);
    for launched in [&two, &one] {
        assert_eq!(world.request(HostOp::TerminateSubcluster(launched.subcluster)), Ok(Answer::Done));
        world.request(HostOp::Collect).expect("collected");
    }
    let ended: Vec<_> = world.stops.iter().map(|(vat, _)| vat.0).collect();
    assert_eq!(ended, [4, 3, 2, 1]);
    assert!(views(&mut world).is_empty());
    let left = [world.rows::<Vats>(), world.rows::<Subclusters>(), world.rows::<Clist>()];
    assert_eq!((left, world.rows::<Objects>(), world.rows::<Promises>()), ([0; 3], 0, 0));
}

#[test]
fn k130_clean_up_disowns_exports_gives_up_imports_and_releases_promises() {
    let mut world = World::new();
    let vats = world.launch(&["boss", "alice", "bob"]);
    world.request(HostOp::Collect).expect("collected");
    let (objects, promises) = (world.rows::<Objects>(), world.rows::<Promises>());
    // Alice exports `o+10` to bob and decides `p+5`, which he awaits; bob exports `o+20` to her and decides `p+7`.
    world.script("alice", |delivery| VatReply {
        store: StoreChanges { sets: vec![("k".into(), "v".into())], deletes: vec![] },
        ..match message(delivery) {
            Some(m) if !m.methargs.slots.is_empty() => {
                let bob = m.methargs.slots[0].to_string();
                let mut out = returns(delivery, CapData::data("#1"));
                out.push(send(&bob, "take", &[vref("o+10"), vref("p+5")], Some("p+6")));
                out.push(capstan_model::vat::VatSyscall::Subscribe(vref("p+6")));
                ok(out)
            }
            _ => obliging(delivery),
        }
    });
    world.script("bob", |delivery| match method(delivery).as_deref() {
        Some("take") => {
            let both = CapData { body: "#[\"$0\",\"&1\"]".into(), slots: vec![vref("o+20"), vref("p+7")] };
            let mut out = returns(delivery, both);
            let promise = message(delivery).unwrap().methargs.slots[1];
            out.push(capstan_model::vat::VatSyscall::Subscribe(promise));
            ok(out)
        }
        Some("call") => {
            let mut out = returns(delivery, CapData::data("#1"));
            out.push(send("o-1", "x", &[], Some("p+8")));
            out.push(capstan_model::vat::VatSyscall::Subscribe(vref("p+8")));
            ok(out)
        }
        _ => obliging(delivery),
    });
    world.call(vats.root("alice"), "go", &[vats.root("bob").into()]);
    assert!(world.rows::<Objects>() == objects + 2 && world.rows::<Promises>() > promises);
    world.log.clear();
    world.request(HostOp::TerminateVat(vats.vat("alice"))).expect("terminated");
    let owner = world.kernel.db().iter::<Objects>().find(|(_, row)| row.owner.is_none()).map(|(ko, _)| *ko);
    let told = world.delivered("bob");
    let has = |wanted: &dyn Fn(&VatDelivery) -> bool| told.iter().any(wanted);
    assert!(owner.is_some(), "bob still reaches her object");
    assert!(has(&|d| matches!(d, VatDelivery::Notify(batch) if batch[0].rejected)), "{told:?}");
    assert!(has(&|d| *d == VatDelivery::DropExports(vec![vref("o+20")])), "{told:?}");
    assert!(has(&|d| *d == VatDelivery::RetireExports(vec![vref("o+20")])), "{told:?}");
    assert_eq!((world.rows::<VatStore>(), world.rows::<Reaps>(), world.rows::<GcActions>()), (0, 0, 0));
    assert!(world.kernel.db().iter::<Clist>().all(|((e, _), _)| *e != EndpointId::Vat(vats.vat("alice"))));
    world.call(vats.root("bob"), "call", &[]);
    let told = world.delivered("bob");
    let Some(VatDelivery::Notify(batch)) = told.last() else { panic!("{told:?}") };
    assert!(batch[0].rejected && batch[0].value.body.contains("OBJECT_DELETED"), "{batch:?}");
}

#[test]
fn k129_a_hundred_thousand_entries_are_cleaned_up_between_the_work_of_others() {
    const ENTRIES: u64 = 100_000;
    let mut world = World::unaudited();
    let vats = world.launch(&["alice", "bob"]);
    let mut made = 0;
    world.script("alice", move |delivery| match method(delivery).as_deref() {
        Some("make") => {
            let slots: Vec<_> = (made..made + ENTRIES / 10).map(|i| vref(&format!("o+{}", i + 10))).collect();
            made += ENTRIES / 10;
            ok(returns(delivery, CapData { body: "#[]".into(), slots }))
        }
        _ => obliging(delivery),
    });
    for _ in 0..10 {
        world.call(vats.root("alice"), "make", &[]);
    }
    let left = |world: &World| {
        let first = (EndpointId::Vat(vats.vat("alice")), KRef::Object(capstan_model::id::ObjectId(0)));
        let all = world.kernel.db().range::<Clist>(first..);
        all.take_while(|((e, _), _)| *e == EndpointId::Vat(vats.vat("alice"))).count() as u64
    };
    let whole = left(&world);
    assert!(whole > ENTRIES);
    world.ask(HostOp::TerminateVat(vats.vat("alice")));
    let collection = world.ask(HostOp::Collect);
    // Each input does one slice, and the work of others is done between them.
    let mut before = left(&world);
    for round in 0..20 {
        let request = world.send(vats.root("bob"), "x", &[]);
        while !world.answers.contains_key(&request) {
            assert!(round < 19 || before > 0);
            world.execute_one();
        }
        let now = left(&world);
        assert!(now < before && now + 400 >= before, "{before} to {now} entries");
        before = now;
    }
    assert!(!world.answers.contains_key(&collection));
    // Killed in the middle, it goes on from there.
    let mut world = world.reboot_unaudited();
    let resumed = left(&world);
    assert!(resumed <= before);
    world.run();
    assert_eq!((left(&world), world.rows::<Vats>()), (0, 1));
    assert!(capstan_kernel::audit::audit(world.kernel.db().tables()).is_empty());
}
