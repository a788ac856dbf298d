//! What vats may ask of the kernel (02 §6, §8).

use crate::harness::*;
use capstan_kernel::host_op::{HostOp, Refusal};
use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, KRef};
use capstan_model::refs::VRef;
use capstan_model::vat::{StoreChanges, VatFault, VatReply, VatSyscall};
use capstan_store::schema::{Clist, ClistByEref, Objects, Promises, VatStore, Vats};

/// Calls alice once; she answers with these syscalls, then with her result. Bob's root is `o-1` to her.
fn answered(syscalls: Vec<VatSyscall>) -> (World, Launched, bool, CapData<KRef>) {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.call(vats.root("alice"), "meet", &[vats.root("bob").into()]);
    world.script("alice", move |delivery| {
        let mut out = syscalls.clone();
        out.extend(returns(delivery, CapData::data("#1")));
        ok(out)
    });
    let (rejected, value) = world.call(vats.root("alice"), "go", &[]);
    (world, vats, rejected, value)
}

fn is_illegal(syscalls: Vec<VatSyscall>) {
    let shown = format!("{syscalls:?}");
    let (world, vats, rejected, value) = answered(syscalls);
    assert_eq!((rejected, code(&value).as_str()), (true, "ILLEGAL_SYSCALL"), "{shown}");
    assert!(world.kernel.db().get::<Vats>(&vats.vat("alice")).is_none(), "{shown}");
    assert!(world.kernel.db().get::<Vats>(&vats.vat("bob")).is_some(), "{shown}");
}

fn is_legal(syscalls: Vec<VatSyscall>) -> (World, Launched) {
    let shown = format!("{syscalls:?}");
    let (world, vats, rejected, value) = answered(syscalls);
    assert!(!rejected, "{shown}: {}", value.body);
    (world, vats)
}

fn refs(names: &[&str]) -> Vec<VRef> {
    names.iter().map(|name| vref(name)).collect()
}

#[test]
fn k10_unknown_imports_are_illegal_everywhere() {
    is_illegal(vec![send("o-9", "x", &[], None)]);
    is_illegal(vec![send("p-9", "x", &[], None)]);
    is_illegal(vec![send("o-1", "x", &[vref("o-9")], None)]);
    is_illegal(vec![send("o-1", "x", &[], Some("p-9"))]);
    is_illegal(vec![VatSyscall::Subscribe(vref("p-9"))]);
    is_illegal(vec![fulfil(vref("p-9"), CapData::data("#1"))]);
    is_illegal(vec![VatSyscall::Exit { failure: false, info: reference(vref("o-9")) }]);
}

#[test]
fn k83_kinds_matter() {
    is_illegal(vec![VatSyscall::Subscribe(vref("o-1"))]);
    is_illegal(vec![send("o-1", "x", &[], Some("o-1"))]);
    is_illegal(vec![fulfil(vref("o+3"), CapData::data("#1"))]);
    is_legal(vec![send("o-1", "x", &[], None)]);
    is_legal(vec![send("p+9", "x", &[], None)]);
}

#[test]
fn k83_one_result_cannot_be_given_twice() {
    is_illegal(vec![send("o-1", "x", &[], Some("p+9")), send("o-1", "y", &[], Some("p+9"))]);
    is_legal(vec![VatSyscall::Subscribe(vref("p+9")), send("o-1", "x", &[], Some("p+9"))]);
}

#[test]
fn k11_unknown_exports_come_into_being() {
    let (world, vats) = is_legal(vec![send("p+9", "x", &[vref("o+11")], None)]);
    let known = |name: &str| {
        let key = (EndpointId::Vat(vats.vat("alice")), vref(name).into());
        world.kernel.db().get::<ClistByEref>(&key).is_some()
    };
    assert!(known("p+9") && known("o+11"));
}

#[test]
fn k85_only_known_imports_can_be_dropped() {
    for name in ["o+0", "o+77", "p-1", "p+9", "o-9"] {
        is_illegal(vec![VatSyscall::DropImports(refs(&[name]))]);
    }
    is_legal(vec![VatSyscall::DropImports(refs(&["o-1"]))]);
    is_legal(vec![VatSyscall::DropImports(refs(&["o-1"])), VatSyscall::DropImports(refs(&["o-1"]))]);
}

#[test]
fn k85_a_dropped_import_cannot_be_used() {
    is_illegal(vec![VatSyscall::DropImports(refs(&["o-1"])), send("o-1", "x", &[], None)]);
}

#[test]
fn k86_imports_are_retired_only_when_dropped() {
    is_illegal(vec![VatSyscall::RetireImports(refs(&["o-1"]))]);
    is_illegal(vec![VatSyscall::RetireImports(refs(&["o+0"]))]);
    let (world, vats) =
        is_legal(vec![VatSyscall::DropImports(refs(&["o-1"])), VatSyscall::RetireImports(refs(&["o-1"]))]);
    let key = (EndpointId::Vat(vats.vat("alice")), KRef::Object(vats.root("bob")));
    assert!(world.kernel.db().get::<Clist>(&key).is_none());
}

#[test]
fn k87_exports_are_retired_only_when_unreachable_and_abandoned_always() {
    is_illegal(vec![send("o-1", "x", &[vref("o+10")], None), VatSyscall::RetireExports(refs(&["o+10"]))]);
    for name in ["o+77", "o-1", "p+9", "o+0"] {
        is_illegal(vec![VatSyscall::AbandonExports(refs(&[name]))]);
        is_illegal(vec![VatSyscall::RetireExports(refs(&[name]))]);
    }
    let (mut world, vats) = is_legal(vec![send("o-1", "x", &[vref("o+10")], None)]);
    let key = (EndpointId::Vat(vats.vat("alice")), vref("o+10").into());
    let thing = *world.kernel.db().get::<ClistByEref>(&key).expect("exported");
    world.script("alice", |_| ok(vec![VatSyscall::AbandonExports(refs(&["o+10"]))]));
    world.send(vats.root("alice"), "abandon", &[]);
    world.run();
    let orphan = world.kernel.db().get::<Objects>(&thing.object().unwrap()).expect("bob holds it");
    assert_eq!(orphan.owner, None);
    assert_eq!(code(&world.call(thing, "x", &[]).1), "OBJECT_DELETED");
}

#[test]
fn k88_a_failing_exit_undoes_the_crank_and_ends_the_vat() {
    let info = CapData::data("#{\"#error\":\"enough\",\"name\":\"Error\"}");
    let sent = send("o-1", "never", &[], None);
    let (world, vats, rejected, value) =
        answered(vec![sent, VatSyscall::Exit { failure: true, info: info.clone() }]);
    assert_eq!((rejected, value.body), (true, info.body));
    assert!(world.methods("bob").is_empty());
    assert!(world.kernel.db().get::<Vats>(&vats.vat("alice")).is_none());
}

#[test]
fn k88_what_an_undone_crank_exported_is_not_part_of_the_reason() {
    let info = reference(vref("o+44"));
    let (_, _, rejected, value) = answered(vec![VatSyscall::Exit { failure: true, info }]);
    assert_eq!((rejected, code(&value).as_str()), (true, "VAT_TERMINATED"));
}

#[test]
fn k89_k90_a_clean_exit_keeps_the_crank_and_ends_the_vat() {
    let info = CapData::data("#\"bye\"");
    let (world, vats, rejected, value) = answered(vec![
        send("o-1", "farewell", &[], None),
        VatSyscall::Exit { failure: false, info: info.clone() },
        VatSyscall::Exit { failure: true, info },
    ]);
    assert_eq!((rejected, &*value.body), (false, "#1"));
    assert_eq!(world.methods("bob"), ["farewell"]);
    assert!(world.kernel.db().get::<Vats>(&vats.vat("alice")).is_none());
}

#[test]
fn k91_an_illegal_syscall_is_not_forgiven() {
    let legal = send("o-1", "never", &[], None);
    let (world, _, rejected, _) = answered(vec![legal.clone(), send("o-9", "x", &[], None), legal]);
    assert!(rejected && world.methods("bob").is_empty());
}

#[test]
fn k38_what_an_undone_crank_made_and_dropped_never_was() {
    let (mut world, vats, rejected, _) = answered(vec![
        send("o-1", "never", &[vref("o+44"), vref("p+9")], Some("p+10")),
        fulfil(vref("p+9"), reference(vref("o+44"))),
        VatSyscall::DropImports(refs(&["o-1"])),
        VatSyscall::RetireImports(refs(&["o-1"])),
        VatSyscall::AbandonExports(refs(&["o+44"])),
        VatSyscall::Subscribe(vref("p-99")),
    ]);
    assert!(rejected);
    world.request(HostOp::Collect).expect("collected");
    // Bob's root is all there is.
    assert_eq!((world.rows::<Objects>(), world.rows::<Promises>(), world.rows::<Clist>()), (1, 0, 1));
    assert!(!world.call(vats.root("bob"), "fine", &[]).0);
}

#[test]
fn k83_what_is_no_syscall_of_the_kernels_cannot_be_said() {
    // A vat's store is its own, and its calls never answer at once: there is no such verb to refuse.
    for word in ["CallNow", "VatstoreGet", "VatstoreSet", "Frob"] {
        let said = serde_json::from_str::<VatSyscall>(&format!("{{\"{word}\":[\"o+0\"]}}"));
        assert!(said.is_err_and(|error| error.to_string().contains("unknown variant")), "{word}");
    }
}

#[test]
fn k92_an_ended_vat_is_not_heard() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.call(vats.root("alice"), "meet", &[vats.root("bob").into()]);
    world.script("alice", |_| ok(vec![send("o-1", "late", &[], None)]));
    world.hold("alice");
    let request = world.send(vats.root("alice"), "go", &[]);
    world.run();
    world.request(HostOp::TerminateVat(vats.vat("alice"))).unwrap();
    world.release("alice");
    assert!(world.methods("bob").is_empty());
    assert!(world.settled(request).0);
    assert_eq!(
        world.request(HostOp::PingVat(vats.vat("alice"))),
        Err(Refusal::VatNotFound(vats.vat("alice")))
    );
}

#[test]
fn a_runtime_fault_aborts_the_crank_and_ends_the_vat_at_once() {
    let mut world = World::new();
    let vats = world.launch(&["alice", "bob"]);
    world.script("alice", |_| fault(VatFault::Runtime("I don't remember".into())));
    let first = world.send(vats.root("alice"), "one", &[]);
    let second = world.send(vats.root("alice"), "two", &[]);
    world.run();
    let reason = world.settled(first).1;
    assert!(reason.body.contains("[KERNEL:VAT_FATAL:INTERNAL_ERROR] I don't remember"), "{}", reason.body);
    assert!(world.settled(second).0);
    assert!(!world.call(vats.root("bob"), "fine", &[]).0);
}

#[test]
fn the_store_is_written_with_the_crank_or_not_at_all() {
    let mut world = World::new();
    let vats = world.launch(&["alice"]);
    let changes = |value: &str| StoreChanges { sets: vec![("k".into(), value.into())], deletes: vec![] };
    world.script("alice", move |delivery| match method(delivery).as_deref() {
        Some("write") => VatReply { store: changes("1"), ..obliging(delivery) },
        Some("delete") => VatReply {
            store: StoreChanges { sets: vec![("l".into(), "".into())], deletes: vec!["k".into()] },
            ..obliging(delivery)
        },
        _ => VatReply { store: changes("bad"), ..fault(VatFault::Limit("too much".into())) },
    });
    let key = (vats.vat("alice"), "k".into());
    world.call(vats.root("alice"), "write", &[]);
    assert_eq!(world.kernel.db().get::<VatStore>(&key).map(|v| &**v), Some("1"));
    world.call(vats.root("alice"), "delete", &[]);
    assert_eq!(world.kernel.db().get::<VatStore>(&key), None);
    assert_eq!(world.rows::<VatStore>(), 1);
    world.call(vats.root("alice"), "fail", &[]);
    assert_eq!(world.rows::<VatStore>(), 0);
}

#[test]
fn k84_a_send_leaves_its_crank_only_with_the_crank() {
    for faults in [false, true] {
        let mut world = World::new();
        let vats = world.launch(&["alice", "bob"]);
        world.script("alice", move |delivery| {
            let bob = message(delivery).unwrap().methargs.slots[0].to_string();
            let mut reply = ok(vec![send(&bob, "hello", &[], None)]);
            reply.syscalls.extend(returns(delivery, CapData::data("#1")));
            if faults {
                reply.outcome = Err(VatFault::Limit("memory".into()));
            }
            reply
        });
        assert_eq!(world.call(vats.root("alice"), "go", &[vats.root("bob").into()]).0, faults);
        assert_eq!(world.methods("bob").len(), usize::from(!faults));
    }
}

#[test]
fn k93_what_was_illegal_is_said_in_the_log() {
    let (world, _, _, value) = answered(vec![VatSyscall::Subscribe(vref("p-99"))]);
    assert_eq!(code(&value), "ILLEGAL_SYSCALL");
    assert!(world.lines.iter().any(|line| line.ends_with("unknown import p-99")), "{:?}", world.lines);
}
