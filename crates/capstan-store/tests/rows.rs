//! Random rows of every durable table, in every shape.

use capstan_model::capdata::CapData;
use capstan_model::id::{EndpointId, GrantId, KRef, ObjectId, PromiseId, RemoteId, SubclusterId, VatId};
use capstan_model::peer::{Digest, Epoch, Incarnation, Millis, PeerId, Seq};
use capstan_model::refs::{ERef, RRef, RefKind, Side, VObject, VRef};
use capstan_model::vat::{CodeFormat, Endowments, FileAccess, VatCode, VatIncarnation, VatLimits};
use capstan_store::schema::*;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Small numbers, so that keys collide, and those at the edges of what SQL can count.
fn number() -> impl Strategy<Value = u64> + Clone {
    let edges = prop::sample::select(vec![i64::MAX as u64, 1 << 63, (1 << 63) + 1, u64::MAX]);
    prop_oneof![4 => 0..8_u64, 1 => any::<u64>(), 1 => edges]
}

fn text() -> impl Strategy<Value = Arc<str>> + Clone {
    let odd = prop::sample::select(vec![
        "",
        "\0",
        "a\0b",
        "'; DROP TABLE meta; --",
        "NULL",
        "kernel",
        "{}",
        "ä\u{10FFFF}",
    ]);
    prop_oneof![2 => "[a-d]{1,2}", 1 => ".{0,40}", 1 => odd.prop_map(String::from)].prop_map(Arc::from)
}

fn ko() -> impl Strategy<Value = ObjectId> + Clone {
    number().prop_map(ObjectId)
}
fn kp() -> impl Strategy<Value = PromiseId> + Clone {
    number().prop_map(PromiseId)
}
fn vat() -> impl Strategy<Value = VatId> + Clone {
    any::<u32>().prop_map(VatId)
}
fn rid() -> impl Strategy<Value = RemoteId> + Clone {
    any::<u32>().prop_map(RemoteId)
}
fn endpoint() -> impl Strategy<Value = EndpointId> + Clone {
    prop_oneof![vat().prop_map(EndpointId::Vat), rid().prop_map(EndpointId::Remote)]
}
fn kref() -> impl Strategy<Value = KRef> + Clone {
    prop_oneof![ko().prop_map(KRef::Object), kp().prop_map(KRef::Promise)]
}
fn side() -> impl Strategy<Value = Side> + Clone {
    prop::sample::select(vec![Side::Export, Side::Import])
}
fn eref() -> impl Strategy<Value = ERef> + Clone {
    let kind = prop::sample::select(vec![RefKind::Object, RefKind::Promise]);
    let path = (any::<u32>(), number(), of(any::<u32>()));
    let vobject = prop_oneof![
        number().prop_map(VObject::Import),
        number().prop_map(VObject::Ephemeral),
        path.clone().prop_map(|(kind, instance, facet)| VObject::Virtual(kind, instance, facet)),
        path.prop_map(|(kind, instance, facet)| VObject::Durable(kind, instance, facet)),
    ];
    prop_oneof![
        vobject.prop_map(|object| ERef::Vat(VRef::Object(object))),
        (side(), number()).prop_map(|(side, index)| ERef::Vat(VRef::Promise(side, index))),
        (kind, side(), number()).prop_map(|(kind, side, index)| ERef::Remote(RRef { kind, side, index })),
    ]
}
fn capdata() -> impl Strategy<Value = CapData<KRef>> + Clone {
    (text(), vec(kref(), 0..4)).prop_map(|(body, slots)| CapData { body, slots })
}
fn send() -> impl Strategy<Value = SendItem> + Clone {
    (kref(), capdata(), of(kp())).prop_map(|(target, methargs, result)| SendItem { target, methargs, result })
}
fn peer() -> impl Strategy<Value = PeerId> + Clone {
    text().prop_map(PeerId::new)
}
fn incarnation() -> impl Strategy<Value = Incarnation> + Clone {
    text().prop_map(Incarnation::new)
}
fn digest() -> impl Strategy<Value = Digest> + Clone {
    any::<[u8; 16]>().prop_map(Digest)
}
fn seq() -> impl Strategy<Value = Seq> + Clone {
    number().prop_map(Seq)
}
fn epoch() -> impl Strategy<Value = Epoch> + Clone {
    number().prop_map(Epoch)
}
fn time() -> impl Strategy<Value = Millis> + Clone {
    number().prop_map(Millis)
}

fn object_row() -> impl Strategy<Value = ObjectRow> {
    let owner = prop_oneof![Just(Owner::Kernel), endpoint().prop_map(Owner::Endpoint)];
    (of(owner), number(), number(), any::<bool>()).prop_map(|(owner, reachable, recognizable, revoked)| {
        ObjectRow { owner, reachable, recognizable, revoked }
    })
}

fn promise_row() -> impl Strategy<Value = PromiseRow> {
    let decider = prop_oneof![Just(Decider::Kernel), endpoint().prop_map(Decider::Endpoint)];
    let state = prop_oneof![
        (of(decider), btree_set(endpoint(), 0..4))
            .prop_map(|(decider, subscribers)| PromiseState::Unresolved { decider, subscribers }),
        capdata().prop_map(PromiseState::Fulfilled),
        capdata().prop_map(PromiseState::Rejected),
    ];
    (state, number()).prop_map(|(state, count)| PromiseRow { state, count })
}

fn clist_row() -> impl Strategy<Value = ClistRow> {
    (eref(), any::<bool>(), seq()).prop_map(|(eref, reachable, last_mention)| ClistRow {
        eref,
        reachable,
        last_mention,
    })
}

fn queue_item() -> impl Strategy<Value = QueueItem> {
    prop_oneof![
        send().prop_map(QueueItem::Send),
        (endpoint(), kp()).prop_map(|(endpoint, promise)| QueueItem::Notify { endpoint, promise }),
        text().prop_map(QueueItem::Unreadable),
    ]
}

fn gc_kind() -> impl Strategy<Value = GcKind> + Clone {
    prop::sample::select(vec![GcKind::DropExport, GcKind::RetireExport, GcKind::RetireImport])
}

fn vat_row() -> impl Strategy<Value = VatRow> {
    let limits = (number(), number(), any::<u32>(), number(), any::<u32>(), number(), any::<u32>());
    let limits = limits.prop_map(|(deadline, memory, syscalls, units, slots, store, queued)| VatLimits {
        crank_deadline_ms: deadline,
        memory_bytes_max: memory,
        syscalls_max: syscalls,
        body_units_max: units,
        slots_max: slots,
        store_bytes_max: store,
        queued_max: queued,
    });
    let phase = prop_oneof![
        Just(VatPhase::Launching),
        Just(VatPhase::Starting),
        Just(VatPhase::Running),
        text().prop_map(|why| VatPhase::Failed(why.to_string())),
        Just(VatPhase::Terminated),
    ];
    let files = (text(), any::<bool>()).prop_map(|(root_dir, given)| FileAccess {
        root_dir,
        exists_sync: given,
        read_file: !given,
        access: given,
    });
    let endowments =
        (prop::collection::vec(text(), 0..3), of(prop::collection::vec(text(), 0..3)), of(files));
    let endowments =
        endowments.prop_map(|(globals, allowed_hosts, files)| Endowments { globals, allowed_hosts, files });
    let identity = (number(), text(), text(), of(text()), limits, endowments, phase);
    let counts = (number(), number(), number(), number());
    (identity, counts).prop_map(
        |((subcluster, name, code, parameters, limits, endowments, phase), counts)| {
            let (incarnation, next_object, next_promise, deliveries) = counts;
            VatRow {
                subcluster: SubclusterId(subcluster),
                name,
                code,
                parameters,
                limits,
                endowments,
                phase,
                incarnation: VatIncarnation(incarnation),
                next_object,
                next_promise,
                deliveries,
            }
        },
    )
}

fn code() -> impl Strategy<Value = VatCode> {
    let format = prop::sample::select(vec![CodeFormat::Module, CodeFormat::Bundle]);
    (format, text(), text()).prop_map(|(format, name, text)| VatCode { format, name, text })
}

fn subcluster_row() -> impl Strategy<Value = SubclusterRow> {
    (text(), text(), any::<bool>(), of(text())).prop_map(|(bootstrap, config, launching, system)| {
        SubclusterRow { bootstrap, config, launching, system }
    })
}

fn remote_row() -> impl Strategy<Value = RemoteRow> {
    (peer(), vec(text(), 0..3), number(), number(), any::<bool>(), number()).prop_map(
        |(peer, hints, next_object, next_promise, closed, restarts_seen)| RemoteRow {
            peer,
            hints,
            next_object,
            next_promise,
            closed,
            restarts_seen,
        },
    )
}

fn session_row() -> impl Strategy<Value = SessionRow> {
    let marks = (epoch(), epoch(), seq(), seq(), digest(), seq(), digest());
    let left = of((incarnation(), epoch()));
    (marks, left, any::<bool>(), number()).prop_map(
        |((epoch, base, una, sent, una_digest, recv, recv_digest), left, classic, outbox_bytes)| SessionRow {
            epoch,
            base,
            una,
            sent,
            una_digest,
            recv,
            recv_digest,
            left,
            classic_born: classic,
            outbox_bytes,
        },
    )
}

fn outbox_row() -> impl Strategy<Value = OutboxRow> {
    (text(), digest(), vec(kp(), 0..3)).prop_map(|(text, digest, retires)| OutboxRow {
        text,
        digest,
        retires,
    })
}

fn grant_row() -> impl Strategy<Value = GrantRow> {
    let terms = (any::<[u8; 32]>(), ko(), time(), of(time()), of(time()), of(number()));
    (terms, of(number().prop_map(GrantId)), any::<bool>()).prop_map(
        |((secret_hash, object, issued, last_used, expires, uses_left), parent, revoked)| GrantRow {
            secret_hash,
            object,
            issued,
            last_used,
            expires,
            uses_left,
            parent,
            revoked,
        },
    )
}

fn rows<K: Ord + std::fmt::Debug, R: std::fmt::Debug + Clone>(
    key: impl Strategy<Value = K>,
    row: impl Strategy<Value = R>,
) -> impl Strategy<Value = BTreeMap<K, Option<R>>> {
    btree_map(key, weighted(0.7, row), 0..5)
}

/// A batch with a few rows written and removed in each durable table.
pub(crate) fn changes() -> impl Strategy<Value = ChangeSet> {
    let redemption = (rid(), kp(), time()).prop_map(|(remote, promise, deadline)| RedemptionRow {
        remote,
        promise,
        deadline,
    });
    let peer_incarnation =
        (of(incarnation()), time()).prop_map(|(incarnation, seen)| PeerIncarnationRow { incarnation, seen });
    let relay = (text(), time(), any::<bool>()).prop_map(|(address, last_seen, bootstrap)| RelayRow {
        address,
        last_seen,
        bootstrap,
    });
    let dead_letter = (time(), text(), text()).prop_map(|(at, item, reason)| DeadLetterRow {
        at,
        item: item.to_string(),
        reason: reason.to_string(),
    });
    let hold = prop::sample::select(vec![HoldKind::Waiting, HoldKind::Handed]);
    let kernel = (
        rows(text(), text()),
        rows(text(), number()),
        rows(ko(), object_row()),
        rows(kp(), promise_row()),
        rows((endpoint(), kref()), clist_row()),
        rows(number(), queue_item()),
        rows((kp(), number()), send()),
        rows((endpoint(), gc_kind(), ko()), Just(())),
        rows(number(), endpoint()),
    );
    let vats = (
        rows(vat(), vat_row()),
        rows(text(), code()),
        rows((vat(), text()), text()),
        rows(number().prop_map(SubclusterId), subcluster_row()),
        rows(text(), ko()),
        rows(number().prop_map(GrantId), grant_row()),
        rows(ko(), number()),
        rows((kref(), hold), number()),
        rows(number(), dead_letter),
    );
    let peers = (
        rows(rid(), remote_row()),
        rows(peer(), session_row()),
        rows((rid(), seq()), outbox_row()),
        rows(peer(), peer_incarnation),
        rows(text(), redemption),
        rows(number(), relay),
    );
    (kernel, vats, peers).prop_map(|(kernel, vats, peers)| {
        let (meta, counters, objects, promises, clist, run_queue, promise_queue, gc_actions, reaps) = kernel;
        let (vats, code, vat_store, subclusters, services, grants, pins, holds, dead_letters) = vats;
        let (remotes, sessions, outbox, peer_incarnations, redemptions, relays) = peers;
        ChangeSet {
            meta,
            counters,
            objects,
            promises,
            clist,
            run_queue,
            promise_queue,
            gc_actions,
            reaps,
            vats,
            code,
            vat_store,
            subclusters,
            services,
            remotes,
            sessions,
            outbox,
            peer_incarnations,
            redemptions,
            relays,
            grants,
            pins,
            holds,
            dead_letters,
            // Not durable: a change set never has any.
            clist_by_eref: BTreeMap::new(),
            importers: BTreeMap::new(),
            reaps_by_endpoint: BTreeMap::new(),
            subcluster_vats: BTreeMap::new(),
            promises_by_decider: BTreeMap::new(),
            queued_results: BTreeMap::new(),
            gc_due: BTreeMap::new(),
            vats_to_clean: BTreeMap::new(),
            remotes_by_peer: BTreeMap::new(),
            grants_by_hash: BTreeMap::new(),
            candidates: BTreeMap::new(),
            waiters: BTreeMap::new(),
            handlers: BTreeMap::new(),
            service_calls: BTreeMap::new(),
        }
    })
}
