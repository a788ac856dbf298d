//! Promises between vats (02 §4.2, §5).

use crate::harness::*;
use capstan_kernel::host_op::HostOp;
use capstan_model::capdata::{CapData, Resolution};
use capstan_model::id::{EndpointId, KRef};
use capstan_model::refs::VRef;
use capstan_model::vat::{VatDelivery, VatSyscall};
use capstan_store::schema::{Clist, Objects, PromiseQueue, Promises, QueueItem, RunQueue};

fn list(slots: &[VRef]) -> CapData<VRef> {
    let items: Vec<_> = (0..slots.len()).map(|i| format!("\"&{i}\"")).collect();
    CapData { body: format!("#[{}]", items.join(",")).into(), slots: slots.to_vec() }
}

fn notifies(world: &World, name: &str) -> Vec<Vec<Resolution<VRef>>> {
    let all = world.delivered(name).into_iter();
    all.filter_map(|delivery| match delivery {
        VatDelivery::Notify(batch) => Some(batch),
        _ => None,
    })
    .collect()
}

fn promises_of(world: &World, vat: capstan_model::id::VatId) -> usize {
    let own = world.kernel.db().iter::<Clist>();
    own.filter(|((e, k), _)| *e == EndpointId::Vat(vat) && k.promise().is_some()).count()
}

/// Alice tells bob of `promises` and later does `then`; bob subscribes to all he is told of.
fn told(promises: &'static [&'static str], then: fn() -> Vec<VatSyscall>) -> (World, Launched) {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", move |delivery| match method(delivery).as_deref() {
        Some("tell") => {
            let bob = message(delivery).unwrap().methargs.slots[0];
            let slots: Vec<_> = promises.iter().map(|p| vref(p)).collect();
            ok(vec![send(&bob.to_string(), "take", &slots, None)])
        }
        Some("then") => ok(then()),
        _ => ok(vec![]),
    });
    world.script("bob", |delivery| {
        let slots = message(delivery).map(|m| m.methargs.slots.clone()).unwrap_or_default();
        ok(slots.into_iter().filter(|s| !s.is_object()).map(VatSyscall::Subscribe).collect())
    });
    world.send(vats.root("alice"), "tell", &[vats.root("bob").into()]);
    world.run();
    (world, vats)
}

#[test]
fn k57_a_promise_resolved_after_it_was_sent_is_seen() {
    let (mut world, vats) = told(&["p+5"], || vec![fulfil(vref("p+5"), CapData::data("#7"))]);
    world.send(vats.root("alice"), "then", &[]);
    world.run();
    let expected = Resolution { promise: vref("p-1"), rejected: false, value: CapData::data("#7") };
    assert_eq!(notifies(&world, "bob"), [vec![expected]]);
    // Both sides forget a promise that is settled and told of; the host calls stay unanswered.
    assert_eq!((promises_of(&world, vats.vat("bob")), promises_of(&world, vats.vat("alice"))), (0, 2));
}

#[test]
fn k58_k72_a_promise_resolved_before_it_was_sent_is_told_at_subscription() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let bob = message(delivery).unwrap().methargs.slots[0];
        ok(vec![
            send(&bob.to_string(), "take", &[vref("p+5")], None),
            fulfil(vref("p+5"), CapData::data("#7")),
        ])
    });
    world.script("bob", |delivery| match message(delivery) {
        Some(m) => ok(vec![VatSyscall::Subscribe(m.methargs.slots[0])]),
        None => ok(vec![]),
    });
    world.send(vats.root("alice"), "tell", &[vats.root("bob").into()]);
    world.run();
    assert_eq!(notifies(&world, "bob").concat()[0].value, CapData::data("#7"));
}

#[test]
fn k61_k75_promises_that_contain_each_other_arrive_in_one_batch() {
    let (mut world, vats) = told(&["p+5", "p+6"], || {
        let resolution = |promise: &str, value| Resolution { promise: vref(promise), rejected: false, value };
        vec![VatSyscall::Resolve(vec![
            resolution("p+5", list(&[vref("p+6"), vref("p+7")])),
            resolution("p+6", list(&[vref("p+5")])),
        ])]
    });
    world.send(vats.root("alice"), "then", &[]);
    world.run();
    // The unresolved third is mentioned, not told; the second notify finds nothing left to tell.
    let expected = vec![
        Resolution { promise: vref("p-1"), rejected: false, value: list(&[vref("p-2"), vref("p-3")]) },
        Resolution { promise: vref("p-2"), rejected: false, value: list(&[vref("p-1")]) },
    ];
    assert_eq!(notifies(&world, "bob"), [expected]);
    assert_eq!(promises_of(&world, vats.vat("bob")), 1);
    assert_eq!(world.rows::<RunQueue>(), 0);
}

#[test]
fn k62_the_same_across_two_cranks_and_one_hand_over() {
    let (mut world, vats) = told(&["p+5", "p+6"], Vec::new);
    let mut turn = 0;
    world.script("alice", move |_| {
        turn += 1;
        ok(match turn {
            1 => vec![fulfil(vref("p+5"), list(&[vref("p+6")]))],
            _ => vec![fulfil(vref("p+6"), list(&[vref("p+5")]))],
        })
    });
    world.hold("bob");
    world.send(vats.root("bob"), "busy", &[]);
    world.send(vats.root("alice"), "one", &[]);
    world.send(vats.root("alice"), "two", &[]);
    world.run();
    world.release("bob");
    // p+5 was retired at alice when she named it again: to her it is a new promise.
    let told: Vec<_> = notifies(&world, "bob").concat().into_iter().map(|r| r.promise).collect();
    assert_eq!(told, [vref("p-1"), vref("p-2")]);
    assert_eq!(world.rows::<RunQueue>(), 0);
}

#[test]
fn k63_promises_of_two_vats_that_contain_each_other() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob", "carol"]);
    let decider = |delivery: &VatDelivery| {
        let slots = message(delivery).map(|m| m.methargs.slots.clone()).unwrap_or_default();
        ok(match method(delivery).as_deref() {
            Some("make") => returns(delivery, reference(vref("p+5"))),
            Some("settle") => vec![fulfil(vref("p+5"), list(&[slots[0]]))],
            _ => vec![],
        })
    };
    world.script("alice", decider);
    world.script("bob", decider);
    world.script("carol", |delivery| {
        let slots = message(delivery).map(|m| m.methargs.slots.clone()).unwrap_or_default();
        ok(slots.into_iter().map(VatSyscall::Subscribe).collect())
    });
    let a = world.call(vats.root("alice"), "make", &[]).1.slots[0];
    let b = world.call(vats.root("bob"), "make", &[]).1.slots[0];
    world.send(vats.root("carol"), "take", &[a, b]);
    world.run();
    world.hold("carol");
    world.send(vats.root("carol"), "busy", &[]);
    world.send(vats.root("alice"), "settle", &[b]);
    world.send(vats.root("bob"), "settle", &[a]);
    world.run();
    world.release("carol");
    let told: Vec<_> = notifies(&world, "carol").concat().into_iter().map(|r| (r.promise, r.value)).collect();
    assert_eq!(told, [(vref("p-1"), list(&[vref("p-2")])), (vref("p-2"), list(&[vref("p-1")]))]);
    // Only the unanswered host calls are left of all this.
    assert_eq!(promises_of(&world, vats.vat("carol")), 2);
}

#[test]
fn k35_what_a_crank_sends_and_settles_is_queued_in_the_order_of_its_syscalls() {
    let (mut world, vats) = told(&["p+5", "p+6"], || {
        vec![
            fulfil(vref("p+5"), CapData::data("#5")),
            send("o-1", "a", &[], None),
            fulfil(vref("p+6"), CapData::data("#6")),
            send("o-1", "b", &[], None),
        ]
    });
    world.log.clear();
    world.send(vats.root("alice"), "then", &[]);
    world.run();
    let shown = world.delivered("bob").into_iter().map(|delivery| match &delivery {
        VatDelivery::Notify(batch) => batch[0].value.body.to_string(),
        other => method(other).unwrap_or_default(),
    });
    assert_eq!(shown.collect::<Vec<_>>(), ["#5", "a", "#6", "b"]);
}

#[test]
fn k42_ten_thousand_calls_leave_no_row_behind() {
    let mut world = World::unaudited();
    let vats = world.launch(&["alice", "bob"]);
    let mut next = 5;
    world.script("alice", move |delivery| {
        let mut out = returns(delivery, CapData::data("#1"));
        if let Some(m) = message(delivery) {
            for _ in 0..100 {
                next += 1;
                let result = format!("p+{next}");
                out.push(send(&m.methargs.slots[0].to_string(), "hi", &[], Some(&result)));
                out.push(VatSyscall::Subscribe(vref(&result)));
            }
        }
        ok(out)
    });
    let bob = KRef::from(vats.root("bob"));
    let rows = |world: &mut World| {
        world.request(HostOp::Collect).expect("collected");
        world.kernel.db().tables().snapshot().len()
    };
    world.call(vats.root("alice"), "go", &[bob]);
    let before = rows(&mut world);
    for _ in 0..100 {
        world.call(vats.root("alice"), "go", &[bob]);
    }
    assert_eq!(rows(&mut world), before);
    assert_eq!(world.methods("bob").len(), 10_100);
    assert_eq!(capstan_kernel::audit::audit(world.kernel.db().tables()), []);
}

/// What it costs to end or restart a vat is proportional to what it decides, not to the length of the queues.
#[test]
fn a_vat_that_decides_much_ends_while_thousands_of_messages_wait() {
    for ends in [true, false] {
        let mut world = World::unaudited();
        let vats = world.launch(&["alice", "bob", "carol"]);
        world.script("alice", |delivery| {
            let carol = message(delivery).map(|m| m.methargs.slots[0].to_string()).unwrap_or_default();
            ok((5..305).map(|n| send(&carol, "x", &[], Some(&format!("p+{n}")))).collect())
        });
        world.hold("carol");
        world.send(vats.root("alice"), "go", &[vats.root("carol").into()]);
        world.run();
        for _ in 0..2_000 {
            world.send(vats.root("carol"), "wait", &[]);
        }
        world.run();
        let carried = |world: &World| {
            let items = world.kernel.db().iter::<RunQueue>();
            items.filter(|(_, i)| matches!(i, QueueItem::Send(item) if item.result.is_some())).count()
        };
        let before = carried(&world);
        let alice = vats.vat("alice");
        world.request(if ends { HostOp::TerminateVat(alice) } else { HostOp::RestartVat(alice) }).unwrap();
        // An ended sender's calls are answered already; a restarted one's are decided by whoever takes them.
        assert_eq!(before - carried(&world), if ends { 300 } else { 0 });
        assert_eq!(capstan_kernel::audit::audit(world.kernel.db().tables()), []);
        world.release("carol");
        assert_eq!(world.methods("carol").len(), 2_300);
    }
}

#[test]
fn k68_k74_k80_messages_to_a_promise_are_delivered_after_it_resolves_in_order() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("p+5")))),
        Some("settle") => ok(vec![fulfil(vref("p+5"), reference(vref("o+10")))]),
        _ => obliging(delivery),
    });
    let promise = world.call(vats.root("alice"), "make", &[]).1.slots[0];
    let thing = KRef::from(vats.root("alice"));
    let counts = world.kernel.db().get::<Objects>(&vats.root("alice")).cloned();
    world.log.clear();
    let (one, two) = (world.send(promise, "one", &[thing]), world.send(promise, "two", &[thing]));
    world.run();
    assert_eq!(world.rows::<PromiseQueue>(), 2);
    world.send(vats.root("alice"), "settle", &[]);
    let three = world.send(promise, "three", &[]);
    world.run();
    assert_eq!(world.methods("alice"), ["settle", "one", "two", "three"]);
    assert!([one, two, three].iter().all(|request| !world.settled(*request).0));
    // The counts of the argument return to what they were.
    assert_eq!(world.kernel.db().get::<Objects>(&vats.root("alice")).cloned(), counts);
}

#[test]
fn k67_a_call_is_pipelined_on_the_result_of_another() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match message(delivery) {
        Some(m) => {
            let bob = m.methargs.slots[0].to_string();
            ok(vec![
                send(&bob, "make", &[], Some("p+5")),
                send("p+5", "use", &[], Some("p+6")),
                fulfil(m.result.unwrap(), reference(vref("p+6"))),
            ])
        }
        None => ok(vec![]),
    });
    world.script("bob", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("o+10")))),
        _ => ok(returns(delivery, CapData::data("#\"used\""))),
    });
    world.call(vats.root("alice"), "go", &[vats.root("bob").into()]);
    assert_eq!(world.methods("bob"), ["make", "use"]);
}

#[test]
fn k71_two_subscriptions_make_one_notify() {
    let (mut world, vats) = told(&["p+5", "p+5"], || vec![fulfil(vref("p+5"), CapData::data("#7"))]);
    world.send(vats.root("alice"), "then", &[]);
    world.run();
    assert_eq!(notifies(&world, "bob").len(), 1);
}

#[test]
fn k73_only_the_decider_resolves_and_only_once() {
    let (mut world, vats) = told(&["p+5"], Vec::new);
    world.script("bob", |_| ok(vec![fulfil(vref("p-1"), CapData::data("#1"))]));
    let (rejected, value) = world.call(vats.root("bob"), "steal", &[]);
    assert_eq!((rejected, code(&value).as_str()), (true, "ILLEGAL_SYSCALL"));
    world.script("alice", |_| {
        ok(vec![fulfil(vref("p+5"), CapData::data("#1")), fulfil(vref("p+5"), CapData::data("#2"))])
    });
    let (rejected, value) = world.call(vats.root("alice"), "twice", &[]);
    assert_eq!((rejected, code(&value).as_str()), (true, "ILLEGAL_SYSCALL"));
}

#[test]
fn k42_calls_leave_nothing_behind() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match message(delivery) {
        Some(m) => {
            let n: u64 = method(delivery).unwrap().parse().unwrap();
            let p = format!("p+{n}");
            let mut out = vec![
                send(&m.methargs.slots[0].to_string(), "hi", &[], Some(&p)),
                VatSyscall::Subscribe(vref(&p)),
            ];
            out.extend(returns(delivery, CapData::data("#1")));
            ok(out)
        }
        None => ok(vec![]),
    });
    let bob = KRef::from(vats.root("bob"));
    world.call(vats.root("alice"), "5", &[bob]);
    let rows = |world: &World| (world.rows::<Promises>(), world.rows::<Clist>(), world.rows::<Objects>());
    let before = rows(&world);
    for n in 6..60 {
        world.call(vats.root("alice"), &n.to_string(), &[bob]);
    }
    assert_eq!(rows(&world), before);
}

#[test]
fn k78_k127_waits_on_terminated_deciders_reject() {
    let (mut world, vats) = told(&["p+5"], Vec::new);
    world.request(HostOp::TerminateVat(vats.vat("alice"))).unwrap();
    let told = notifies(&world, "bob").concat();
    assert!(told[0].rejected && told[0].value.body.contains("[KERNEL:VAT_TERMINATED] Vat was deleted."));
}

#[test]
fn k79_waits_on_restarted_deciders_reject() {
    let (mut world, vats) = told(&["p+5"], Vec::new);
    world.request(HostOp::RestartVat(vats.vat("alice"))).unwrap();
    let told = notifies(&world, "bob").concat();
    assert!(told[0].rejected && told[0].value.body.contains("[KERNEL:VAT_TERMINATED] vat restarted"));
    // The new run has never heard of it: nobody else would take the name back.
    assert_eq!(promises_of(&world, vats.vat("alice")), 0);
}

#[test]
fn a_result_settled_while_it_waited_is_none() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("ask") => {
            let bob = message(delivery).unwrap().methargs.slots[0].to_string();
            ok(vec![send(&bob, "wait", &[], Some("p+7"))])
        }
        _ => ok(vec![fulfil(vref("p+7"), CapData::data("#1"))]),
    });
    world.hold("bob");
    world.send(vats.root("bob"), "busy", &[]);
    world.send(vats.root("alice"), "ask", &[vats.root("bob").into()]);
    world.send(vats.root("alice"), "settle", &[]);
    world.run();
    world.release("bob");
    let delivered = world.delivered("bob");
    let results: Vec<_> = delivered.iter().filter_map(message).map(|m| m.result).collect();
    assert_eq!(results, [Some(vref("p-1")), None]);
}

#[test]
fn what_waited_for_a_vat_that_dies_is_answered_in_order() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let Some(m) = message(delivery) else { return ok(vec![]) };
        let (bob, result) = (m.methargs.slots[0].to_string(), method(delivery).unwrap());
        ok(vec![send(&bob, "die", &[], Some(&result)), VatSyscall::Subscribe(vref(&result))])
    });
    world.script("bob", |_| ok(vec![VatSyscall::Subscribe(vref("p-99"))]));
    world.hold("bob");
    for result in ["p+1", "p+2", "p+3"] {
        world.send(vats.root("alice"), result, &[vats.root("bob").into()]);
        world.run();
    }
    assert_eq!(world.kept("bob").len(), 1);
    world.release("bob");
    let told: Vec<_> = notifies(&world, "alice").concat().iter().map(|told| told.promise).collect();
    assert_eq!(told, [vref("p+1"), vref("p+2"), vref("p+3")]);
}

#[test]
fn k81_the_result_of_a_parked_message_is_rejected_when_its_sender_dies() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("bob", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("p+5")))),
        _ => ok(vec![]),
    });
    world.script("alice", |delivery| {
        let m = message(delivery).unwrap();
        ok(vec![
            send(&m.methargs.slots[0].to_string(), "parked", &[], Some("p+7")),
            fulfil(m.result.unwrap(), reference(vref("p+7"))),
        ])
    });
    let promise = world.call(vats.root("bob"), "make", &[]).1.slots[0];
    let answer = world.call(vats.root("alice"), "go", &[promise]).1.slots[0];
    assert_eq!(world.rows::<PromiseQueue>(), 1);
    world.request(HostOp::TerminateVat(vats.vat("alice"))).unwrap();
    let (rejected, value) = world.call(answer, "x", &[]);
    assert_eq!((rejected, code(&value).as_str()), (true, "VAT_TERMINATED"));
    assert!(world.kernel.db().iter::<PromiseQueue>().all(|(_, item)| item.result.is_none()));
}

#[test]
fn a_sender_that_dies_while_its_call_is_in_flight_does_not_harm_the_callee() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let m = message(delivery).unwrap();
        ok(vec![
            send(&m.methargs.slots[0].to_string(), "slow", &[], Some("p+7")),
            fulfil(m.result.unwrap(), reference(vref("p+7"))),
        ])
    });
    world.hold("bob");
    let answer = world.call(vats.root("alice"), "go", &[vats.root("bob").into()]).1.slots[0];
    assert_eq!(world.kept("bob").len(), 1);
    world.request(HostOp::TerminateVat(vats.vat("alice"))).unwrap();
    world.release("bob");
    assert!(!world.call(vats.root("bob"), "alive", &[]).0);
    assert_eq!(code(&world.call(answer, "x", &[]).1), "VAT_TERMINATED");
}

#[test]
fn k70_a_result_rejected_in_a_later_crank_rejects_the_call() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    let mut asked = None;
    world.script("alice", move |delivery| match method(delivery).as_deref() {
        Some("ask") => {
            asked = message(delivery).and_then(|m| m.result);
            ok(vec![])
        }
        Some("later") => {
            let mut out = returns(delivery, CapData::data("#1"));
            out.extend(asked.take().map(|result| reject(result, "no")));
            ok(out)
        }
        _ => obliging(delivery),
    });
    let request = world.send(vats.root("alice"), "ask", &[]);
    world.run();
    assert!(!world.answers.contains_key(&request));
    world.call(vats.root("alice"), "later", &[]);
    let (rejected, value) = world.settled(request);
    assert_eq!((rejected, &*value.body), (true, "#{\"#error\":\"no\",\"name\":\"Error\"}"));
}

#[test]
fn k76_a_notify_of_a_promise_that_the_vat_was_told_of_meanwhile_is_dropped() {
    let (mut world, vats) = told(&["p+5", "p+6"], || {
        // The first notify carries both promises, so the second has nothing left to say.
        vec![VatSyscall::Resolve(vec![
            Resolution { promise: vref("p+5"), rejected: false, value: list(&[vref("p+6")]) },
            Resolution { promise: vref("p+6"), rejected: false, value: CapData::data("#6") },
        ])]
    });
    world.hold("bob");
    world.send(vats.root("alice"), "then", &[]);
    world.run();
    world.release("bob");
    let batches = notifies(&world, "bob");
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [2], "{batches:?}");
    assert_eq!(world.rows::<RunQueue>(), 0);
    assert_eq!(promises_of(&world, vats.vat("bob")), 0);
}

#[test]
fn k77_a_promise_counts_its_decider_and_its_holders_and_leaves_nothing() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("p+5")))),
        _ => obliging(delivery),
    });
    let promise = world.call(vats.root("alice"), "make", &[]).1.slots[0];
    let waiting = world.send(promise, "parked", &[vats.root("bob").into()]);
    world.run();
    assert_eq!(world.rows::<PromiseQueue>(), 1);
    let count = world.kernel.db().get::<Promises>(&promise.promise().unwrap()).map(|row| row.count);
    // Alice's claim, alice's name for it, the slot of her answer and what was handed out, the parked message;
    // her answer's promise goes with the call.
    let held_by_values = world.kernel.db().iter::<Promises>().filter(|(_, row)| match &row.state {
        capstan_store::schema::PromiseState::Fulfilled(value) => value.slots.contains(&promise),
        _ => false,
    });
    assert_eq!(count, Some(4 + held_by_values.count() as u64));
    world.request(HostOp::TerminateVat(vats.vat("alice"))).expect("terminated");
    assert_eq!(code(&world.settled(waiting).1), "VAT_TERMINATED");
    world.request(HostOp::Collect).expect("collected");
    assert_eq!((world.rows::<Promises>(), world.rows::<PromiseQueue>()), (0, 0));
}

#[test]
fn a_promise_fulfilled_with_itself_is_counted_and_told() {
    let (mut world, vats) = told(&["p+5"], || vec![fulfil(vref("p+5"), list(&[vref("p+5")]))]);
    world.send(vats.root("alice"), "then", &[]);
    world.run();
    let expected = Resolution { promise: vref("p-1"), rejected: false, value: list(&[vref("p-1")]) };
    assert_eq!(notifies(&world, "bob"), [vec![expected]]);
    assert_eq!(promises_of(&world, vats.vat("bob")), 0);
}

#[test]
fn the_result_of_a_message_on_its_way_outlives_a_restart() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let Some(m) = message(delivery) else { return ok(vec![]) };
        let bob = m.methargs.slots[0].to_string();
        ok(vec![send(&bob, "wait", &[], Some("p+7")), VatSyscall::Subscribe(vref("p+7"))])
    });
    world.hold("bob");
    world.send(vats.root("bob"), "busy", &[]);
    world.send(vats.root("alice"), "ask", &[vats.root("bob").into()]);
    world.run();
    world.request(HostOp::RestartVat(vats.vat("alice"))).unwrap();
    world.release("bob");
    let told = notifies(&world, "alice").concat();
    assert_eq!((told.len(), told[0].promise, told[0].rejected), (1, vref("p+7"), false));
}

#[test]
fn what_one_crank_sends_on_waits_behind_what_waits_for_the_next() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let bob = message(delivery).and_then(|m| m.methargs.slots.first().copied());
        ok(match method(delivery).as_deref() {
            Some("make") => returns(delivery, list(&[vref("p+1"), vref("p+2")])),
            Some("one") => vec![fulfil(vref("p+1"), reference(vref("p+2")))],
            Some("two") => vec![fulfil(vref("p+2"), reference(bob.unwrap()))],
            _ => vec![],
        })
    });
    let promises = world.call(vats.root("alice"), "make", &[]).1.slots;
    world.send(promises[0], "second", &[]);
    world.send(promises[1], "first", &[]);
    world.run();
    world.hold("alice");
    for name in ["busy", "one", "two"] {
        world.send(vats.root("alice"), name, &[vats.root("bob").into()]);
    }
    world.run();
    // Both settlements come back in one answer: they are two cranks all the same.
    world.release("alice");
    assert_eq!(world.methods("bob"), ["first", "second"]);
}

/// Alice sends to a result of hers, or to two in a circle, and loses her memory: nobody is left who could settle them.
#[test]
fn messages_that_wait_for_each_other_end_with_the_restart_of_their_sender() {
    for second in [None, Some("p+8")] {
        let mut world = World::new();
        let vats = world.launch(&["alice"]);
        world.script("alice", move |delivery| {
            let Some(m) = message(delivery) else { return ok(vec![]) };
            let mut out = vec![send(second.unwrap_or("p+7"), "one", &[], Some("p+7"))];
            out.extend(second.map(|second| send("p+7", "two", &[], Some(second))));
            out.push(fulfil(m.result.unwrap(), reference(vref("p+7"))));
            ok(out)
        });
        let answer = world.call(vats.root("alice"), "go", &[]).1.slots[0];
        let waiting = world.send(answer, "x", &[]);
        world.run();
        assert!(!world.answers.contains_key(&waiting));
        world.request(HostOp::RestartVat(vats.vat("alice"))).unwrap();
        let (rejected, value) = world.settled(waiting);
        assert_eq!((rejected, code(&value).as_str()), (true, "VAT_TERMINATED"), "{second:?}");
        assert_eq!(world.rows::<PromiseQueue>(), 0);
    }
}

/// Alice's message waits for a promise of Bob's; after her restart he fulfils it with the result of that message.
#[test]
fn a_message_that_comes_to_wait_for_its_own_result_ends_if_its_sender_was_restarted() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |delivery| {
        let Some(m) = message(delivery) else { return ok(vec![]) };
        let bobs = m.methargs.slots[0].to_string();
        ok(vec![send(&bobs, "one", &[], Some("p+7")), fulfil(m.result.unwrap(), reference(vref("p+7")))])
    });
    world.script("bob", |delivery| match method(delivery).as_deref() {
        Some("make") => ok(returns(delivery, reference(vref("p+5")))),
        Some("settle") => {
            let slot = message(delivery).unwrap().methargs.slots[0];
            let mut out = returns(delivery, CapData::data("#1"));
            out.push(fulfil(vref("p+5"), reference(slot)));
            ok(out)
        }
        _ => ok(vec![]),
    });
    let bobs = world.call(vats.root("bob"), "make", &[]).1.slots[0];
    let answer = world.call(vats.root("alice"), "go", &[bobs]).1.slots[0];
    world.request(HostOp::RestartVat(vats.vat("alice"))).unwrap();
    let waiting = world.send(answer, "x", &[]);
    world.run();
    assert!(!world.answers.contains_key(&waiting));
    world.call(vats.root("bob"), "settle", &[answer]);
    let (rejected, value) = world.settled(waiting);
    assert_eq!((rejected, code(&value).as_str()), (true, "VAT_TERMINATED"));
    assert_eq!(world.rows::<PromiseQueue>(), 0);
}
