//! What a vat does outside any delivery is a crank of its own (02 §6).

use crate::harness::*;
use capstan_kernel::host_op::{Answer, HostOp};
use capstan_model::capdata::CapData;
use capstan_model::vat::{StoreChanges, VatDelivery, VatFault, VatReply, VatSyscall};
use capstan_store::schema::{RunQueue, VatStore, Vats};

/// Alice knows bob's root as `o-1`; when woken she answers with `reply`.
fn woken_alice(reply: impl Fn() -> VatReply + 'static) -> (World, Launched) {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob", "carol"]);
    world.call(vats.root("alice"), "meet", &[vats.root("bob").into()]);
    world.script("alice", move |delivery| match delivery {
        VatDelivery::Wake => reply(),
        _ => obliging(delivery),
    });
    world.log.clear();
    (world, vats)
}

fn stored(key: &str) -> StoreChanges {
    StoreChanges { sets: vec![(key.into(), "v".into())], deletes: vec![] }
}

fn wakes(world: &World, name: &str) -> usize {
    world.delivered(name).iter().filter(|delivery| **delivery == VatDelivery::Wake).count()
}

#[test]
fn k94_what_a_vat_does_between_its_cranks_does_not_go_with_the_abort_of_another() {
    let (mut world, vats) = woken_alice(|| ok(vec![send("o-1", "ring", &[], None)]));
    world.script("carol", |_| fault(VatFault::Runtime("broken".into())));
    world.hold("carol");
    let aborted = world.send(vats.root("carol"), "x", &[]);
    world.run();
    world.wake(vats.vat("alice"), 1);
    world.run();
    assert_eq!(world.methods("bob"), ["ring"], "a crank of carol's is still open");
    world.wake(vats.vat("alice"), 1);
    world.release("carol");
    assert!(world.settled(aborted).0);
    assert_eq!(world.methods("bob"), ["ring", "ring"]);
    assert!(world.kernel.db().get::<Vats>(&vats.vat("alice")).is_some());
}

#[test]
fn an_asynchronous_crank_is_all_or_nothing() {
    let (mut world, vats) = woken_alice(|| VatReply {
        store: stored("k"),
        ..ok(vec![send("o-1", "ring", &[], None), VatSyscall::Subscribe(vref("p-99"))])
    });
    world.wake(vats.vat("alice"), 1);
    world.run();
    assert!(world.kernel.db().get::<Vats>(&vats.vat("alice")).is_none());
    assert_eq!((world.methods("bob").len(), world.rows::<VatStore>(), world.rows::<RunQueue>()), (0, 0, 0));
    assert!(world.lines.iter().any(|line| line.contains("ILLEGAL_SYSCALL")), "{:?}", world.lines);
}

#[test]
fn an_asynchronous_crank_writes_the_vats_store_and_may_end_the_vat() {
    let (mut world, vats) = woken_alice(|| VatReply { store: stored("k"), ..ok(vec![]) });
    world.wake(vats.vat("alice"), 1);
    world.run();
    assert_eq!(world.rows::<VatStore>(), 1);
    let exit = |failure| VatSyscall::Exit { failure, info: CapData::data("#\"enough\"") };
    for (failure, rings) in [(false, 1), (true, 0)] {
        let (mut world, vats) = woken_alice(move || ok(vec![send("o-1", "ring", &[], None), exit(failure)]));
        world.wake(vats.vat("alice"), 1);
        world.run();
        assert!(world.kernel.db().get::<Vats>(&vats.vat("alice")).is_none());
        assert_eq!(world.methods("bob").len(), rings, "failure: {failure}");
    }
}

#[test]
fn a_busy_vat_is_woken_once_when_it_is_idle_and_before_what_waits() {
    let (mut world, vats) = woken_alice(|| ok(vec![]));
    world.hold("alice");
    world.send(vats.root("alice"), "first", &[]);
    world.run();
    world.wake(vats.vat("alice"), 1);
    world.wake(vats.vat("alice"), 1);
    world.send(vats.root("alice"), "second", &[]);
    world.run();
    assert_eq!(world.kept("alice").len(), 1, "nothing goes beside a delivery in flight");
    world.release("alice");
    let order: Vec<_> = world.delivered("alice").iter().map(|d| method(d).unwrap_or("wake".into())).collect();
    assert_eq!(order, ["first", "wake", "second"]);
}

#[test]
fn a_run_that_is_over_is_not_woken() {
    let (mut world, vats) = woken_alice(|| ok(vec![send("o-1", "ring", &[], None)]));
    assert_eq!(world.request(HostOp::RestartVat(vats.vat("alice"))), Ok(Answer::Done));
    world.wake(vats.vat("alice"), 1);
    world.run();
    assert_eq!(wakes(&world, "alice"), 0);
    // Woken while busy, then restarted: the timers died with the memory.
    world.hold("alice");
    world.send(vats.root("alice"), "x", &[]);
    world.run();
    world.wake(vats.vat("alice"), 2);
    world.lose("alice");
    assert_eq!(world.request(HostOp::RestartVat(vats.vat("alice"))), Ok(Answer::Done));
    assert_eq!(wakes(&world, "alice"), 0);
    assert_eq!(world.request(HostOp::TerminateVat(vats.vat("alice"))), Ok(Answer::Done));
    world.wake(vats.vat("alice"), 3);
    world.run();
    assert_eq!(wakes(&world, "alice"), 0);
    let mut world = world.reboot();
    world.wake(vats.vat("alice"), 3);
    world.run();
    assert!(!world.call(vats.root("bob"), "x", &[]).0);
}

#[test]
fn a_vat_that_settles_in_a_crank_of_its_own_what_its_next_delivery_names_goes_on() {
    let (mut world, vats) = woken_alice(|| ok(vec![]));
    world.call(vats.root("bob"), "meet", &[vats.root("alice").into()]);
    world.script("bob", |delivery| {
        let slots = message(delivery).map(|m| m.methargs.slots.clone()).unwrap_or_default();
        ok(slots.iter().map(|&slot| send("o-1", "back", &[slot], None)).collect())
    });
    world.script("alice", |delivery| match (delivery, method(delivery).as_deref()) {
        (VatDelivery::Wake, _) => ok(vec![fulfil(vref("p+7"), CapData::data("#7"))]),
        (_, Some("begin")) => ok(vec![send("o-1", "take", &[vref("p+7")], None)]),
        // Forgotten with its settlement, so this is a promise of somebody's to her.
        (VatDelivery::Message { message, .. }, Some("back")) => {
            ok(message.methargs.slots.iter().map(|&slot| VatSyscall::Subscribe(slot)).collect())
        }
        _ => ok(vec![]),
    });
    world.hold("bob");
    world.send(vats.root("alice"), "begin", &[]);
    world.run();
    world.hold("alice");
    world.send(vats.root("alice"), "busy", &[]);
    world.run();
    world.release("bob");
    world.wake(vats.vat("alice"), 1);
    world.log.clear();
    world.release("alice");
    let told: Vec<_> = world
        .delivered("alice")
        .into_iter()
        .filter_map(|delivery| match delivery {
            VatDelivery::Notify(batch) => Some(batch[0].value.body.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!((wakes(&world, "alice"), told), (1, vec!["#7".to_owned()]));
    assert!(world.kernel.db().get::<Vats>(&vats.vat("alice")).is_some());
}
