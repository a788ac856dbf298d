//! Promise shapes between vats (06 D).

use crate::world::World;

const HEAD: &str = "import { E, Far } from '@endo/far'; import { makePromiseKit } from '@endo/promise-kit';
export const buildRootObject = () => Far('root', ";

/// Runs `ann.go(bob…)` and returns its outcome.
fn talk(ann: &str, others: &[&str]) -> (bool, String) {
    let sources: Vec<String> =
        [&[ann], others].concat().iter().map(|methods| format!("{HEAD} {methods});")).collect();
    World::new(&sources.iter().map(String::as_str).collect::<Vec<_>>()).bootstrap("go")
}

fn fulfils(ann: &str, others: &[&str], value: &str) {
    assert_eq!(talk(ann, others), (false, format!("#{value}")));
}

#[test]
fn k57_a_promise_sent_unresolved_and_resolved_later() {
    let ann = "{ go(bob) { const { promise, resolve } = makePromiseKit(); const r = E(bob).wait(promise); resolve('v'); return r; } }";
    fulfils(ann, &["{ async wait(p) { return ['got', await p]; } }"], r#"["got","v"]"#);
}

#[test]
fn k58_a_promise_resolved_before_it_is_sent() {
    let ann = "{ go(bob) { return E(bob).wait(Promise.resolve('v')); } }";
    fulfils(ann, &["{ async wait(p) { return ['got', await p]; } }"], r#"["got","v"]"#);
}

#[test]
fn k59_a_promise_resolved_after_the_reply() {
    let ann = "{ async go(bob) { const { promise, resolve } = makePromiseKit(); const [p] = await E(bob).wait(promise); resolve('v'); return p; } }";
    fulfils(ann, &["{ wait(p) { return [p.then(x => `got ${x}`)]; } }"], r#""got v""#);
}

#[test]
fn k60_a_chain_of_promises() {
    let bob = "{ first() { const kits = [1, 2, 3, 4].map(() => makePromiseKit()); this.kits = undefined;
        for (let i = 0; i < 4; i += 1) kits[i].resolve([i, i < 3 ? kits[i + 1].promise : 'end']); return kits[0].promise; } }";
    let bob = bob.replace("this.kits = undefined;", "");
    let ann = "{ async go(bob) { const seen = []; let p = E(bob).first(); while (p !== 'end') { const [n, next] = await p; seen.push(n); p = next; } return seen; } }";
    fulfils(ann, &[&bob], "[0,1,2,3]");
}

#[test]
fn k61_two_promises_that_contain_each_other() {
    let bob = "{ both() { const a = makePromiseKit(), b = makePromiseKit(); a.resolve([b.promise]); b.resolve([a.promise]); return [a.promise, b.promise]; } }";
    let ann = "{ async go(bob) { const [a, b] = await E(bob).both(); const [[b2], [a2]] = [await a, await b];
        return [b2 instanceof Promise, a2 instanceof Promise, (await b2)[0] instanceof Promise]; } }";
    fulfils(ann, &[bob], "[true,true,true]");
}

#[test]
fn k62_the_same_across_two_cranks() {
    let bob = "(() => { const a = makePromiseKit(), b = makePromiseKit(); return { both: () => [a.promise, b.promise],
        one: () => a.resolve([b.promise]), two: () => b.resolve([a.promise]) }; })()";
    let ann = "{ async go(bob) { const [a, b] = await E(bob).both(); await E(bob).one(); await E(bob).two(); const [[b2], [a2]] = [await a, await b];
        return [(await b2)[0] instanceof Promise, (await a2)[0] instanceof Promise]; } }";
    fulfils(ann, &[bob], "[true,true]");
}

#[test]
fn k63_the_same_decided_by_two_vats() {
    let decider = "(() => { const k = makePromiseKit(); return { get: () => [k.promise], set: p => k.resolve([p]) }; })()";
    let ann = "{ async go(bob, cat) { const [p] = await E(bob).get(); const [q] = await E(cat).get(); await E(bob).set(q); await E(cat).set(p);
        const [[q2], [p2]] = [await p, await q]; return [q2 instanceof Promise, p2 instanceof Promise]; } }";
    fulfils(ann, &[decider, decider], "[true,true]");
}

#[test]
fn k64_a_promise_resolved_to_a_settled_promise() {
    let bob = "{ indirect() { const a = makePromiseKit(), b = makePromiseKit(); b.resolve('v'); a.resolve(b.promise); return [a.promise]; } }";
    fulfils("{ async go(bob) { const [p] = await E(bob).indirect(); return p; } }", &[bob], r#""v""#);
}

#[test]
fn k65_and_k66_a_result_passed_as_an_argument() {
    let ann =
        "{ async go(bob) { const r = E(bob).one(); const s = E(bob).two(r); return [await r, await s]; } }";
    fulfils(ann, &["{ one: () => 1, two: async p => (await p) + 1 }"], "[1,2]");
    let late = "(() => { const k = makePromiseKit(); return { one: () => k.promise, two: async p => { k.resolve(1); return (await p) + 1; } }; })()";
    fulfils(ann, &[late], "[1,2]");
}

#[test]
fn k67_a_call_pipelined_on_a_result() {
    let bob = "{ make: () => Far('thing', { hi: n => `hi ${n}` }) }";
    fulfils("{ go: bob => E(E(bob).make()).hi(3) }", &[bob], r#""hi 3""#);
}

#[test]
fn k68_messages_to_a_promise_keep_their_order() {
    let bob = "(() => { const k = makePromiseKit(); const seen = []; const log = Far('log', { add: n => { seen.push(n); return [...seen]; } });
        return { get: () => k.promise, open: () => k.resolve(log) }; })()";
    let ann = "{ async go(bob) { const log = E(bob).get(); E(log).add(1); E(log).add(2); E(bob).open(); await log; return E(log).add(3); } }";
    fulfils(ann, &[bob], "[1,2,3]");
}

#[test]
fn k69_and_k70_errors_keep_message_and_name() {
    let bob =
        "{ boom() { throw TypeError('boom'); }, async later() { throw RangeError('later'); }, ok: () => 1 }";
    let ann = "{ async go(bob) { const out = []; for (const m of ['boom', 'later', 'none']) await E(bob)[m]().catch(e => out.push(`${e.name} ${e.message}`));
        out.push(await E(bob).ok()); return out; } }";
    let methods = r#"has [\"__getMethodNames__\",\"boom\",\"later\",\"ok\"]"#;
    fulfils(
        ann,
        &[bob],
        &format!(
            r#"["TypeError boom","RangeError later","TypeError target has no method \"none\", {methods}",1]"#
        ),
    );
}

#[test]
fn k82_an_async_generator_is_consumed_elsewhere() {
    let bob = "{ count() { const g = (async function* () { yield 1; yield 2; yield 3; })();
        return Far('generator', { next: () => g.next().then(r => ({ ...r })) }); } }";
    let ann = "{ async go(bob) { const g = E(bob).count(); const out = []; for await (const n of { [Symbol.asyncIterator]: () => ({ next: () => E(g).next() }) }) out.push(n); return out; } }";
    fulfils(ann, &[bob], "[1,2,3]");
}

#[test]
fn the_same_reference_keeps_its_identity() {
    let bob = "(() => { let kept; return { keep: x => { kept = x; }, same: x => x === kept, give: () => kept }; })()";
    let ann = "{ async go(bob) { const mine = Far('mine', {}); await E(bob).keep(mine); return [await E(bob).same(mine), (await E(bob).give()) === mine]; } }";
    fulfils(ann, &[bob], "[true,true]");
}

#[test]
fn a_promise_returned_by_its_own_decider_is_not_awaited_for_ever() {
    // The result promise itself comes back as an argument of a call to the vat that decides it.
    let bob = "(() => { const k = makePromiseKit(); return { start: () => k.promise, finish: async p => { k.resolve(7); return p; } }; })()";
    fulfils("{ go: bob => E(bob).finish(E(bob).start()) }", &[bob], "7");
}
