//! Kernel services and pins (02 §10.2, §7.6).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId};
use capstan_model::refs::VRef;
use capstan_model::vat::{VatDelivery, VatSyscall};
use capstan_store::schema::{
    HoldKind, Holds, Objects, Pins, PromiseState, Promises, PromisesByDecider, RunQueue, ServiceCalls,
    Services,
};

fn launch_with(world: &mut World, names: &[&str], services: &[&str]) -> Result<Answer, Refusal> {
    for name in names {
        world.scripts.entry((*name).to_owned()).or_insert_with(|| Box::new(obliging));
    }
    let HostOp::Launch(config) = World::launch_op(names) else { panic!("not a launch") };
    let services = services.iter().map(|name| (*name).into()).collect();
    world.request(HostOp::Launch(LaunchConfig { services, ..config }))
}

fn unregister(world: &mut World, name: &str) {
    assert_eq!(world.request(HostOp::UnregisterService { name: name.into() }), Ok(Answer::Done));
}

fn waiting(world: &World) -> Vec<KRef> {
    let holds = world.kernel.db().iter::<Holds>().filter(|((_, kind), _)| *kind == HoldKind::Waiting);
    holds.map(|((kref, _), _)| *kref).collect()
}

fn counts(world: &World, ko: ObjectId) -> Option<(u64, u64)> {
    world.kernel.db().get::<Objects>(&ko).map(|row| (row.reachable, row.recognizable))
}

fn text_of(value: &CapData<KRef>) -> String {
    value.body.to_string()
}

/// A vat that keeps what `bootstrap` gave it as `services.clock` and calls it for everybody who asks.
fn client(delivery: &VatDelivery) -> capstan_model::vat::VatReply {
    match method(delivery).as_deref() {
        Some("ask") => {
            let result = message(delivery).and_then(|m| m.result).expect("a result");
            // The answer goes straight to whoever asked.
            ok(vec![send("o-1", "now", &[vref("o+0")], Some(&result.to_string()))])
        }
        Some("cast") => {
            let mut syscalls = vec![send("o-1", "now", &[vref("o+7")], None)];
            syscalls.extend(returns(delivery, CapData::data("#1")));
            ok(syscalls)
        }
        _ => obliging(delivery),
    }
}

fn with_client() -> (World, ObjectId, ObjectId) {
    let mut world = World::new();
    let clock = world.serve("clock");
    world.script("a", client);
    let launched = launch_with(&mut world, &["a"], &["clock"]).expect("a launch");
    let Answer::Launched { root, .. } = launched else { panic!("{launched:?}") };
    world.log.clear();
    (world, clock, root)
}

#[test]
fn k178_a_service_is_registered_once_and_forgotten_when_unregistered() {
    let mut world = World::new();
    let clock = world.serve("clock");
    assert_eq!(counts(&world, clock), Some((1, 1)));
    let again =
        world.request(HostOp::RegisterService { name: "clock".into(), system_only: false, holds: None });
    assert_eq!(again, Err(Refusal::ServiceRegistered("clock".into())));
    unregister(&mut world, "nobody");

    unregister(&mut world, "clock");
    assert_eq!((counts(&world, clock), world.rows::<Services>()), (None, 0));
    let refused = launch_with(&mut world, &["a"], &["clock"]);
    assert_eq!(refused, Err(Refusal::BadConfig("no registered kernel service 'clock'".into())));
    assert_ne!(world.serve("clock"), clock);
}

#[test]
fn a_service_holds_what_its_code_refers_to_as_long_as_it_is_registered() {
    let mut world = World::new();
    let launched = world.launch(&["a"]);
    world.script("a", |delivery| ok(returns(delivery, reference(vref("o+d7/1")))));
    let (_, value) = world.call(launched.root("a"), "make", &[]);
    let made = value.slots[0].object().expect("an object");
    let register =
        |name: &str| HostOp::RegisterService { name: name.into(), system_only: false, holds: Some(made) };
    for name in ["one", "two"] {
        assert!(matches!(world.request(register(name)), Ok(Answer::Object { .. })));
    }
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    assert_eq!(counts(&world, made), Some((2, 2)));
    unregister(&mut world, "one");
    assert_eq!(counts(&world, made), Some((1, 1)));
    let mut world = world.reboot();
    assert_eq!(counts(&world, made), None);
    assert_eq!(world.request(register("two")), Err(Refusal::BadReference(made.to_string())));
}

#[test]
fn k178_what_is_held_of_an_unregistered_service_is_an_orphan() {
    let (mut world, clock, root) = with_client();
    unregister(&mut world, "clock");
    let (rejected, value) = world.call(root, "ask", &[]);
    assert!(rejected && code(&value) == "OBJECT_DELETED", "{value:?}");
    // The vat lets go of it, and nothing of it remains.
    world.script("a", |delivery| match delivery {
        VatDelivery::BringOutYourDead => {
            ok(vec![VatSyscall::DropImports(vec![vref("o-1")]), VatSyscall::RetireImports(vec![vref("o-1")])])
        }
        _ => obliging(delivery),
    });
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    assert_eq!(counts(&world, clock), None);
}

#[test]
fn k179_a_service_has_the_same_kref_after_a_restart() {
    let (world, clock, _) = with_client();
    let mut world = world.reboot();
    assert_eq!(world.serve("clock"), clock);
    let mut world = world.reboot_serving(&["clock", "other"]);
    let again =
        world.request(HostOp::RegisterService { name: "clock".into(), system_only: false, holds: None });
    assert_eq!(again, Err(Refusal::ServiceRegistered("clock".into())));
    // Nobody has named the other: it has no object yet.
    assert_eq!(world.rows::<Services>(), 1);
    assert!(launch_with(&mut world, &["b"], &["clock", "other"]).is_ok());
    assert_eq!(world.rows::<Services>(), 2);
}

#[test]
fn k180_a_service_sees_references_and_the_vat_gets_the_answer() {
    let (mut world, clock, root) = with_client();
    let request = world.send(root, "ask", &[]);
    world.run();
    let call = world.service_call();
    assert_eq!((call.service.as_str(), &call.methargs), ("clock", &call_of("now", &[root.into()])));
    assert_eq!(waiting(&world).first(), Some(&root.into()));
    assert_eq!((world.rows::<RunQueue>(), world.rows::<PromisesByDecider>()), (0, 1));

    world.reply(&call, Ok(known(root)));
    assert_eq!(world.settled(request), (false, known(root)));
    assert_eq!((waiting(&world), world.rows::<ServiceCalls>()), (vec![], 0));
    // An answer comes once.
    world.reply(&call, Ok(known(clock)));
    assert_eq!(world.settled(request), (false, known(root)));
}

fn call_of(method: &str, slots: &[KRef]) -> CapData<KRef> {
    call(method, slots)
}

#[test]
fn k180_what_a_call_names_lives_until_the_answer() {
    let (mut world, _, root) = with_client();
    assert_eq!(world.call(root, "cast", &[]), (false, CapData::data("#1")));
    let call = world.service_call();
    let given = call.methargs.slots[0].object().expect("an object");
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    assert_eq!(counts(&world, given), Some((1, 1)));
    // A service keeps what it was given by pinning it.
    assert_eq!(world.request(HostOp::Pin(given)), Ok(Answer::Done));
    world.reply(&call, Ok(CapData::data("#1")));
    assert_eq!(counts(&world, given), Some((1, 1)));
    assert_eq!(world.request(HostOp::Unpin(given)), Ok(Answer::Done));
    world.run();
    assert_eq!(counts(&world, given), None);
    assert!(world.lines.is_empty(), "{:?}", world.lines);
}

#[test]
fn k181_a_failing_call_rejects_with_its_text_and_without_a_result_is_logged() {
    let (mut world, _, root) = with_client();
    let request = world.send(root, "ask", &[]);
    world.run();
    let call = world.service_call();
    world.reply(&call, Err("clock is \"slow\""));
    let (rejected, value) = world.settled(request);
    assert!(rejected && code(&value) == "DELIVERY_FAILED", "{value:?}");
    assert!(text_of(&value).contains("] clock is \\\"slow\\\""), "{value:?}");

    assert_eq!(world.call(root, "cast", &[]), (false, CapData::data("#1")));
    assert!(world.lines.is_empty(), "{:?}", world.lines);
    let call = world.service_call();
    world.reply(&call, Err("too late"));
    assert_eq!(world.lines, ["a call of kernel service 'clock' failed: too late"]);
}

#[test]
fn k181_an_answer_that_is_no_value_rejects() {
    let (mut world, _, root) = with_client();
    let bad = [
        CapData::data("no smallcaps"),
        CapData::data("#\"$0\""),
        known(ObjectId(999)),
        known(capstan_model::id::PromiseId(999)),
        CapData { slots: vec![ObjectId(999).into()], ..CapData::data("#1") },
        CapData { slots: vec![root.into()], ..CapData::data("#\"&0\"") },
    ];
    for value in bad {
        let request = world.send(root, "ask", &[]);
        world.run();
        let call = world.service_call();
        world.reply(&call, Ok(value.clone()));
        let (rejected, reason) = world.settled(request);
        assert!(rejected && code(&reason) == "DELIVERY_FAILED", "{value:?}: {reason:?}");
        assert!(text_of(&reason).contains("the service gave"), "{reason:?}");
    }
    assert_eq!(waiting(&world), []);
}

#[test]
fn k182_a_service_may_use_the_kernel_while_it_serves() {
    let (mut world, _, root) = with_client();
    let request = world.send(root, "ask", &[]);
    world.run();
    let call = world.service_call();
    // It launches vats, calls them, collects, and ends the very vat that called it.
    let other = world.launch(&["b"]);
    assert_eq!(world.call(other.root("b"), "hello", &[]).1, CapData::data("#\"#undefined\""));
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    let client = capstan_model::id::VatId(1);
    assert_eq!(world.request(HostOp::TerminateVat(client)), Ok(Answer::Done));
    world.reply(&call, Ok(known(other.root("b"))));
    assert_eq!(world.settled(request), (false, known(other.root("b"))));
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    assert_eq!((waiting(&world), counts(&world, root)), (vec![], None));
}

#[test]
fn k185_a_call_in_progress_at_a_crash_rejects() {
    let (mut world, _, root) = with_client();
    world.send(root, "ask", &[]);
    world.run();
    let call = world.service_call();
    let decided = world.kernel.db().iter::<PromisesByDecider>().map(|((_, kp), ())| *kp);
    let [kp] = decided.collect::<Vec<_>>()[..] else { panic!("not one promise") };
    // The host's wait does not survive the crash; a message that names the promise does.
    world.hold("a");
    world.send(root, "keep", &[kp.into()]);
    let mut world = world.reboot_serving(&["clock"]);
    let state = world.kernel.db().get::<Promises>(&kp).map(|row| row.state.clone());
    if let Some(PromiseState::Rejected(reason)) = &state {
        assert_eq!(code(reason), "DELIVERY_FAILED");
    } else {
        panic!("{state:?}");
    }
    assert!(waiting(&world).is_empty(), "{:?}", waiting(&world));
    assert!(world.service_calls.is_empty(), "called again: {:?}", world.service_calls);
    // The dead process's answer means nothing to this one, and the service works on.
    world.reply(&call, Ok(CapData::data("#1")));
    world.release("a");
    let request = world.send(root, "ask", &[]);
    world.run();
    let call = world.service_call();
    world.reply(&call, Ok(CapData::data("#2")));
    assert_eq!(world.settled(request), (false, CapData::data("#2")));
}

#[test]
fn k55_a_message_for_a_service_without_code_in_this_run_splats() {
    let (mut world, clock, root) = with_client();
    world.hold("a");
    world.send(root, "ask", &[]);
    let mut world = world.reboot();
    world.release("a");
    assert_eq!((world.rows::<RunQueue>(), world.service_calls.len()), (0, 0));
    let (rejected, value) = world.call(root, "ask", &[]);
    assert!(rejected && code(&value) == "OBJECT_DELETED", "{value:?}");
    let (rejected, value) = world.call(clock, "now", &[]);
    assert!(rejected && code(&value) == "OBJECT_DELETED", "{value:?}");
    assert_eq!(world.serve("clock"), clock);
    world.send(clock, "now", &[]);
    assert_eq!(world.service_call().service, "clock");
}

#[test]
fn k55_a_message_queued_before_a_restart_reaches_a_service_that_is_back() {
    let (mut world, _, root) = with_client();
    // As many calls in progress as there may be: the next message waits, durably.
    for _ in 0..256 {
        world.call(root, "cast", &[]);
    }
    let first = world.service_call();
    world.send(root, "ask", &[]);
    world.run();
    assert_eq!((world.service_calls.len(), world.rows::<RunQueue>()), (255, 1));
    let mut world = world.reboot_serving(&["clock"]);
    let call = world.service_call();
    assert_eq!((world.service_calls.len(), world.rows::<RunQueue>()), (0, 0));
    assert_eq!(call.methargs, call_of("now", &[root.into()]));
    assert!(call.call > first.call);
}

#[test]
fn a_busy_service_takes_the_oldest_message_first_and_delays_only_itself() {
    let (mut world, clock, _) = with_client();
    let other = world.serve("other");
    let sent: Vec<_> = (0..259).map(|number| world.send(clock, &format!("m{number}"), &[])).collect();
    world.send(other, "hello", &[]);
    let taken = |world: &World| world.service_calls.iter().map(method_of).collect::<Vec<_>>();
    assert_eq!(taken(&world).len(), 257);
    assert_eq!(taken(&world)[255..], ["m255", "hello"]);
    let first = world.service_call();
    world.reply(&first, Ok(CapData::data("#1")));
    assert_eq!(taken(&world)[255..], ["hello", "m256"]);
    // What waits for a service that goes away is told so at once.
    unregister(&mut world, "clock");
    assert_eq!(world.rows::<RunQueue>(), 0);
    let (rejected, value) = world.settled(sent[258]);
    assert!(rejected && code(&value) == "OBJECT_DELETED", "{value:?}");
    // The calls that it had taken may still be answered, and do not count for its successor.
    world.serve("clock");
    while let Some(call) = world.service_calls.pop_front() {
        world.reply(&call, Ok(CapData::data("#1")));
    }
    assert_eq!((world.rows::<ServiceCalls>(), waiting(&world)), (0, vec![]));
}

fn method_of(call: &ServiceCall) -> String {
    call.methargs.body.split('"').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_revoked_service_takes_no_calls() {
    let (mut world, clock, root) = with_client();
    assert_eq!(world.request(HostOp::IsRevoked(clock.into())), Ok(Answer::Revoked(false)));
    assert_eq!(world.request(HostOp::Revoke(clock.into())), Ok(Answer::Done));
    assert_eq!(world.request(HostOp::IsRevoked(clock.into())), Ok(Answer::Revoked(true)));
    let (rejected, value) = world.call(root, "ask", &[]);
    assert!(rejected && code(&value) == "OBJECT_REVOKED", "{value:?}");
}

#[test]
fn k109_a_service_without_importers_stays() {
    let mut world = World::new();
    let clock = world.serve("clock");
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    assert_eq!(counts(&world, clock), Some((1, 1)));
    let mut world = world.reboot();
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    assert_eq!((counts(&world, clock), world.serve("clock")), (Some((1, 1)), clock));
}

#[test]
fn k160_bootstrap_gets_the_services_it_asked_for() {
    let mut world = World::new();
    let clock = world.serve("clock");
    world.script("a", |delivery| {
        let m = message(delivery).expect("bootstrap");
        assert_eq!(
            &*m.methargs.body,
            "#[\"bootstrap\",[{\"a\":\"$0.Alleged: vatRoot\"},{\"clock\":\"$1.Alleged: KernelService\"}]]"
        );
        let clock: VRef = m.methargs.slots[1];
        ok(returns(delivery, reference(clock)))
    });
    let launched = launch_with(&mut world, &["a"], &["clock", "clock"]);
    let Ok(Answer::Launched { bootstrap_result: Some(value), .. }) = launched else { panic!("{launched:?}") };
    assert_eq!(value.slots, [clock.into()]);
}

#[test]
fn k161_a_launch_is_undone_when_a_service_goes_away_meanwhile_and_restricted_ones_are_not_offered() {
    let mut world = World::new();
    world.serve("clock");
    let HostOp::Launch(config) = World::launch_op(&["a"]) else { panic!("not a launch") };
    let launch = world.ask(HostOp::Launch(LaunchConfig { services: vec!["clock".into()], ..config }));
    world.ask(HostOp::UnregisterService { name: "clock".into() });
    world.run();
    let refusal = Err(Refusal::BadConfig("no registered kernel service 'clock'".into()));
    assert_eq!(world.answers[&launch], refusal);
    assert_eq!(world.rows::<Objects>(), 0);

    let restricted = HostOp::RegisterService { name: "facet".into(), system_only: true, holds: None };
    assert!(matches!(world.request(restricted), Ok(Answer::Object { .. })));
    let refusal = Err(Refusal::BadConfig("no registered kernel service 'facet'".into()));
    assert_eq!(launch_with(&mut world, &["a"], &["facet"]), refusal);
}

#[test]
fn k110_a_pin_counts_and_is_undone_once_each() {
    let mut world = World::new();
    let launched = world.launch(&["a"]);
    world.script("a", |delivery| ok(returns(delivery, reference(vref("o+1")))));
    let (_, value) = world.call(launched.root("a"), "make", &[]);
    let made = value.slots[0].object().expect("an object");
    assert_eq!(world.request(HostOp::Pin(made)), Ok(Answer::Done));
    assert_eq!(world.request(HostOp::Pin(made)), Ok(Answer::Done));
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    assert_eq!(counts(&world, made), Some((2, 2)));
    let mut world = world.reboot_changed(|_| {});
    // Its vat's restart took it: it is an orphan now, and still pinned.
    assert_eq!(world.request(HostOp::Unpin(made)), Ok(Answer::Done));
    assert_eq!(counts(&world, made), Some((1, 1)));
    assert_eq!(world.request(HostOp::Unpin(made)), Ok(Answer::Done));
    assert_eq!((counts(&world, made), world.rows::<Pins>()), (None, 0));
    assert_eq!(world.request(HostOp::Unpin(made)), Ok(Answer::Done));
    assert_eq!(world.request(HostOp::Pin(made)), Err(Refusal::BadReference(made.to_string())));
}

#[test]
fn k110_a_root_is_pinned_by_its_vat() {
    let mut world = World::new();
    let launched = world.launch(&["a", "b"]);
    let (vat, root) = (launched.vat("a"), launched.root("a"));
    assert_eq!(world.request(HostOp::PinRoot(vat)), Ok(Answer::Object { object: root }));
    assert_eq!(world.request(HostOp::TerminateVat(vat)), Ok(Answer::Done));
    assert!(matches!(world.request(HostOp::Collect), Ok(Answer::Collected { .. })));
    assert_eq!(counts(&world, root), Some((1, 1)));
    assert_eq!(world.request(HostOp::UnpinRoot(vat)), Err(Refusal::VatNotFound(vat)));
    assert_eq!(world.request(HostOp::PinRoot(vat)), Err(Refusal::VatNotFound(vat)));
    assert_eq!(world.request(HostOp::Unpin(root)), Ok(Answer::Done));
    assert_eq!(counts(&world, root), None);

    let (vat, root) = (launched.vat("b"), launched.root("b"));
    let pinned = Ok(Answer::Object { object: root });
    assert_eq!(world.request(HostOp::PinRoot(vat)), pinned);
    assert_eq!(world.request(HostOp::UnpinRoot(vat)), pinned);
    assert_eq!(world.request(HostOp::UnpinRoot(vat)), pinned);
    assert_eq!(world.rows::<Pins>(), 0);
}
