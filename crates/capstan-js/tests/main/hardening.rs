//! A vat against its realm, its runtime and its neighbours (04 §2): each way out that others found, tried here.

use crate::world::{Vat, start_of};
use capstan_js::{VatEvent, Workers};
use capstan_model::id::VatId;
use capstan_model::vat::*;
use std::time::Duration;

const SOURCE: &str = "import { Far, E } from '@endo/far';
export const buildRootObject = () => Far('root', { run: text => (0, eval)(text), runLater: async text => (0, eval)(text),
  pass: (target, text) => E.sendOnly(target).take((0, eval)(text)), give: text => (0, eval)(text) });";

fn call(vat: &mut Vat, method: &str, program: &str) -> (bool, String) {
    let text = serde_json::Value::from(format!(" {program}"));
    let (rejected, body, _) = vat.answer(&format!("#[\"{method}\",[{text}]]"), &[]);
    (rejected, body)
}

/// Each program must be true, all in one vat, which lives on.
fn hold(programs: &[&str]) {
    let mut vat = Vat::start(SOURCE);
    for program in programs {
        assert_eq!(call(&mut vat, "runLater", program), (false, "#true".into()), "{program}");
    }
}

/// Each program must throw or reject.
fn fail(programs: &[&str]) {
    let mut vat = Vat::start(SOURCE);
    for program in programs {
        let (rejected, body) = call(&mut vat, "runLater", program);
        assert!(rejected, "{program}: {body}");
    }
    assert_eq!(call(&mut vat, "run", "1 + 1"), (false, "#2".into()));
}

#[test]
fn the_global_object_has_the_listed_names_and_no_others() {
    let expected = "AggregateError Array ArrayBuffer BigInt BigInt64Array BigUint64Array Boolean DataView Date Error EvalError Float16Array \
        Float32Array Float64Array Function HandledPromise Infinity Int16Array Int32Array Int8Array Iterator JSON Map Math NaN Number Object \
        Promise Proxy RangeError ReferenceError Reflect RegExp Set String Symbol Symbol(@endo passStyleOf) Symbol(Symbol.toStringTag) \
        SyntaxError TypeError URIError Uint16Array Uint32Array Uint8Array Uint8ClampedArray VatData WeakMap WeakSet assert console decodeURI \
        decodeURIComponent encodeURI encodeURIComponent escape eval exports global globalThis harden isFinite isNaN parseFloat parseInt \
        undefined unescape";
    let (_, body) =
        call(&mut Vat::start(SOURCE), "run", "Reflect.ownKeys(globalThis).map(String).sort().join(' ')");
    let expected: Vec<&str> = expected.split_whitespace().collect();
    let found: Vec<&str> = body.trim_start_matches("#\"").trim_end_matches('"').split(' ').collect();
    let strange: Vec<_> = found.iter().filter(|name| !expected.join(" ").contains(**name)).collect();
    assert!(strange.is_empty(), "{strange:?} in {body}");
}

#[test]
fn no_constructor_leads_out() {
    hold(&[
        "(() => {}).constructor('return this')() === globalThis",
        "[].constructor.constructor('return typeof __host + typeof host + typeof process')() === 'undefined'.repeat(3)",
        "(function* () {}).constructor('yield this')().next().value === globalThis",
        "(async () => {}).constructor('return this')().then(got => got === globalThis)",
        "(async function* () {}).constructor('yield this')().next().then(({ value }) => value === globalThis)",
        "Function('return Function')() === Function && Function('return eval')() === eval",
        "console.log.constructor === Function && harden.constructor === Function && VatData.defineKind.constructor === Function",
    ]);
}

#[test]
fn nothing_can_be_imported_dynamically_from_any_position() {
    for name in ["capstan:lockdown", "@endo/far", "node:fs", "vat.js", "./vat.js"] {
        let import = format!("import('{name}')");
        let programs = [
            import.clone(),
            format!("[...[{import}]][0]"),
            format!("Promise.all([...[1], {import}])"),
            format!("((...all) => all[1])(...[1, {import}])"),
            format!("((x = {import}) => x)()"),
            format!("({{ p: {import} }}).p"),
            format!("`${{{import}}}` && {import}"),
            format!("(class {{ static p = {import}; }}).p"),
            format!("(class {{ static {{ this.p = {import}; }} }}).p"),
            format!("eval(\"{import}\")"),
            format!("(0, eval)(\"{import}\")"),
            format!("new Function(\"return {import}\")()"),
            format!("(async () => await {import})()"),
            format!("(function* () {{ yield* [{import}]; }})().next().value"),
            format!("(async function* () {{ yield {import}; }})().next()"),
            format!("Promise.resolve().then(() => {import})"),
            format!("import('{name}', {{ with: {{ type: 'json' }} }})"),
        ];
        let mut vat = Vat::start(SOURCE);
        for program in programs {
            let (rejected, body) = call(&mut vat, "runLater", &program);
            assert!(rejected, "{program}: {body}");
        }
    }
    let import_at_top =
        "const inner = await import('capstan:lockdown'); export const buildRootObject = () => inner.host;";
    let start = start_of(1, import_at_top, VatLimits::default(), Vec::new());
    assert!(Vat::try_start(start).err().unwrap().contains("dynamically"));
}

#[test]
fn a_bundle_can_import_nothing_either() {
    let code = "var __vatExports__ = (function(exports) { exports.buildRootObject = () => import('capstan:lockdown'); return exports; })({});";
    let mut start = start_of(1, "", VatLimits::default(), Vec::new());
    start.code.format = CodeFormat::Bundle;
    start.code.text =
        serde_json::json!({"moduleFormat": "iife", "code": code, "exports": [], "external": []})
            .to_string()
            .into();
    assert!(Vat::try_start(start).err().unwrap().contains("dynamically"));
}

#[test]
fn k144_a_bundle_sees_what_it_is_promised() {
    let code = "var __vatExports__ = (function(exports) { const seen = [typeof harden, typeof assert.Fail, typeof HandledPromise.resolve, typeof VatData, \
        typeof console.log, typeof globalThis, globalThis === global, typeof setTimeout, typeof Date.now].join();
        exports.buildRootObject = () => { const p = Object.freeze(Object.create(Object.prototype, { [Symbol.for('passStyle')]: { value: 'remotable' }, \
          [Symbol.toStringTag]: { value: 'Alleged: root' } })); return harden(Object.create(p, { seen: { value: () => seen, enumerable: true } })); }; return exports; })({});
        if (typeof exports !== 'object') throw Error('no exports');";
    let mut start = start_of(1, "", VatLimits::default(), Vec::new());
    start.code.format = CodeFormat::Bundle;
    start.code.text =
        serde_json::json!({"moduleFormat": "iife", "code": code, "exports": [], "external": []})
            .to_string()
            .into();
    start.endowments.globals = vec!["setTimeout".into()];
    let mut vat = Vat::try_start(start).unwrap();
    assert_eq!(
        vat.answer(r##"#["seen",[]]"##, &[]).1,
        "#\"function,function,function,object,function,object,true,function,function\""
    );
}

#[test]
fn every_prototype_that_a_program_can_meet_is_frozen() {
    let meet = "const met = []; const meet = f => { try { met.push(f()); } catch (error) { met.push(error); } };
        meet(() => { const f = () => f() + 1; f(); }); meet(() => null.x); meet(() => undefined()); meet(() => new Array(-1)); meet(() => eval('('));
        meet(() => decodeURI('%')); meet(() => 1n + 1); meet(() => nowhere); meet(() => new RegExp('[')); meet(() => JSON.parse('{'));
        meet(() => 'x'.repeat(2 ** 31)); meet(() => new ArrayBuffer(1e15)); meet(() => { class A { #x; static look(o) { return o.#x; } } A.look({}); });
        meet(() => { throw new AggregateError([]); }); meet(() => [].reduce((a, b) => a)); meet(() => Symbol() + ''); meet(() => structuredClone(1));
        for (const make of [() => [].keys(), () => new Map().keys(), () => new Set().keys(), () => 'x'[Symbol.iterator](), () => 'x'.matchAll(/x/g),
          () => [].values().map(x => x), () => [].values().filter(x => x), () => [].values().take(1), () => [].values().drop(1), () => [].values().flatMap(x => [x]),
          () => Iterator.from({ next() { return { done: true }; } }), () => Iterator.concat([1]), () => Object.getPrototypeOf((function* () {})()), () => Object.getPrototypeOf((async function* () {})()),
          () => (async () => {})(), () => /x/.exec('x'), () => new Proxy({}, {}), () => Proxy.revocable({}, {}), () => new Int8Array(1), () => new DataView(new ArrayBuffer(1)),
          () => (function () { return arguments; })(), () => Promise.withResolvers(), () => Object.groupBy([1], x => x), () => Map.groupBy([1], x => x), () => new WeakMap(),
          () => Symbol('x'), () => 1n, () => new Date(0), () => [][Symbol.unscopables], () => Array.prototype[Symbol.unscopables], () => async function* () {},
          () => function* () {}, () => async () => {}, () => class {}, () => [].toSorted(), () => new Error('x', { cause: 1 }), () => VatData]) meet(make);
        const bad = []; const seen = new Set([globalThis]); const visit = (o, path) => { if ((typeof o !== 'object' && typeof o !== 'function') || o === null || seen.has(o)) return; seen.add(o);
          if (!Object.isFrozen(o)) bad.push(path); visit(Object.getPrototypeOf(o), path + '^'); for (const k of Reflect.ownKeys(o)) { const d = Object.getOwnPropertyDescriptor(o, k);
            visit(d.value, path + '.' + String(k)); visit(d.get, path + ' get ' + String(k)); visit(d.set, path + ' set ' + String(k)); } };
        for (const [i, x] of met.entries()) if (x !== null && x !== undefined) { visit(Object.getPrototypeOf(Object(x)), `${i}^`); visit(Object(x).constructor, `${i}.constructor`); }
        bad.join()";
    assert_eq!(call(&mut Vat::start(SOURCE), "run", meet), (false, "#\"\"".into()));
}

#[test]
fn no_clock_is_left() {
    fail(&[
        "Reflect.construct(Date, [])",
        "class D extends Date {}; new D()",
        "Date.call(undefined)",
        "Date.prototype.constructor()",
        "new (Object.getPrototypeOf(new Date(0)).constructor)(...[])",
        "performance.now()",
        "Date.now.call(Date)",
        "new Date(0).constructor.now()",
        "Temporal.Now.instant()",
        "new Intl.DateTimeFormat().format()",
        "Atomics.wait(new Int32Array(1), 0, 0, 10)",
        "Math.random.call(undefined)",
        "Reflect.apply(Math.random, Math, [])",
    ]);
    hold(&["Number.isNaN(new Date(undefined).getTime()) && Number.isNaN(new Date(NaN).getTime())"]);
}

#[test]
fn stacks_and_hooks_tell_nothing_and_change_nothing() {
    fail(&[
        "'use strict'; Object.defineProperty(Error.prototype, 'stack', { get() { return 1; } })",
        "'use strict'; (function f() { return f.caller; })()",
        "'use strict'; (function () { return arguments.callee; })()",
        "Function.prototype.caller",
    ]);
    hold(&[
        "class E2 extends Error { static prepareStackTrace() { return 'mine'; } }; new E2('x').stack !== 'mine'",
        "const { stack } = new Error('x'); typeof stack === 'string' && !/rquickjs|\\.rs|[\\s(]\\//.test(stack)",
        "Function('return (function f() { try { return f.caller; } catch { return null; } })()')() == null",
        "Function('return (function f() { try { return f.arguments; } catch { return null; } })()')() == null",
    ]);
}

#[test]
fn what_others_log_and_throw_at_the_runtime_runs_within_the_meter() {
    let limits = VatLimits { crank_deadline_ms: 300, ..VatLimits::default() };
    for program in [
        "Promise.reject({ get [Symbol.toStringTag]() { for (;;); } }); 1",
        "Promise.reject(new Proxy(new Error('x'), { get() { for (;;); } })); 1",
        "const e = new Error('x'); Object.defineProperty(e, 'stack', { get() { for (;;); } }); Promise.reject(e); 1",
        "console.log({ toJSON() { for (;;); } })",
        "throw { get message() { for (;;); } }",
        "({ get then() { for (;;); } })",
    ] {
        let mut vat = Vat::try_start(start_of(1, SOURCE, limits, Vec::new())).unwrap();
        let text = serde_json::Value::from(format!(" {program}"));
        let reply = vat.call(&format!("#[\"run\",[{text}]]"), &[]);
        match reply.outcome {
            Err(VatFault::Limit(text)) => assert_eq!(text, "crank deadline of 300 ms exceeded", "{program}"),
            // Refused before it was looked at.
            Ok(()) => assert!(program.starts_with("throw") || program.starts_with("({"), "{program}"),
            Err(other) => panic!("{program}: {other:?}"),
        }
    }
    let source = "throw { get message() { for (;;); }, toString() { for (;;); } };";
    let failed = Vat::try_start(start_of(1, source, limits, Vec::new())).err().unwrap();
    assert!(!failed.is_empty());
}

#[test]
fn what_is_not_what_it_seems_does_not_pass() {
    let mut vat = Vat::start(SOURCE);
    for program in [
        "({ get x() { return 1; } })",
        "[1, , 2]",
        "Object.create({ inherited: 1 })",
        "Object.create(Promise.prototype)",
        "Object.assign(Promise.resolve(1), { then() {} })",
        "Object.setPrototypeOf(Promise.resolve(1), { __proto__: Promise.prototype })",
        "new (class extends Promise {})(() => {})",
        "Object.assign([], { constructor: { [Symbol.species]: Array } })",
        "new Map([[1, 2]])",
        "new Uint8Array(2)",
        "new Date(0)",
        "/x/",
        "Object.create(Object.prototype, { [Symbol.for('passStyle')]: { get() { return 'remotable'; } } })",
        "(() => {})",
        "({ method() {} })",
        "new Proxy({}, { getPrototypeOf() { throw Error('trap'); } })",
        "new Proxy({}, { ownKeys() { throw Error('trap'); } })",
        "new Proxy({}, { preventExtensions: () => false })",
        "Proxy.revocable({}, {}).proxy.x || (() => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy; })()",
    ] {
        let text = serde_json::Value::from(format!(" {program}"));
        let reply = vat.call(&format!("#[\"pass\",[\"$0\",{text}]]"), &["o-1"]);
        assert_eq!(reply.outcome, Ok(()), "{program}");
        let sent = reply.syscalls.iter().any(|syscall| matches!(syscall, VatSyscall::Send { .. }));
        assert!(!sent, "{program}: {reply:?}");
        // A method may return any kind of promise: what it settles with passes or not.
        if !program.contains("Promise") {
            let (rejected, body) = call(&mut vat, "give", program);
            assert!(rejected, "{program}: {body}");
        }
    }
}

#[test]
fn a_proxy_that_calls_back_confuses_nobody() {
    let mut vat = Vat::start(SOURCE);
    let program = "(() => { let n = 0; return new Proxy({ a: 1 }, { ownKeys(t) { if ((n += 1) < 3) E.sendOnly(globalThis.target).nested(n); return Reflect.ownKeys(t); } }); })()";
    let text = serde_json::Value::from(program);
    let keep = "#[\"run\",[\"globalThis.E = HandledPromise; 1\"]]";
    vat.answer(keep, &[]);
    let reply = vat.call(&format!("#[\"pass\",[\"$0\",{text}]]"), &["o-1"]);
    assert_eq!(reply.outcome, Ok(()));
    assert_eq!(call(&mut vat, "run", "1 + 1"), (false, "#2".into()));
}

#[test]
fn a_lying_promise_is_not_run_in_its_callers_turn() {
    hold(&[
        "let ran = false; const p = Promise.resolve(harden({ m: () => 1 })); p.then = () => { ran = true; }; HandledPromise.applyMethod(p, 'm', []); ran === false",
        "let ran = false; const p = Promise.resolve(1); let n = 0; Object.defineProperty(p, 'constructor', { get() { return (n += 1) === 1 ? Promise : { [Symbol.species]: function (executor) { ran = true; executor(() => {}, () => {}); } }; } });
            const q = HandledPromise.applyMethod(p, 'm', []); ran === false && Object.getPrototypeOf(q) === Promise.prototype",
    ]);
}

#[test]
fn harden_freezes_what_it_can_and_keeps_the_elements_of_arrays_of_bytes() {
    hold(&[
        "'use strict'; const o = harden({ bytes: new Uint8Array(2), inner: { x: [1] } }); o.bytes[0] = 7; o.bytes[0] === 7 && Object.isFrozen(o.inner.x) && !Object.isExtensible(o.bytes)",
        "let getter = 0; const o = harden({ get x() { getter += 1; return 1; } }); getter === 0 && Object.isFrozen(o)",
        "const a = {}; const b = { a }; a.b = b; harden(a) === a && Object.isFrozen(b)",
        "const p = harden(Promise.resolve(1)); Object.isFrozen(p)",
        "const bytes = Object.assign(new Uint8Array(1), { x: { y: 1 } }); harden(bytes); Object.isFrozen(bytes.x) && !Object.getOwnPropertyDescriptor(bytes, 'x').writable",
        // A walk that fails half way is not taken for a whole one.
        "let fails = true; const late = {}; const trap = new Proxy({}, { ownKeys: t => { if (fails) throw Error('not yet'); return Reflect.ownKeys(t); } }); \
         const o = { trap, late }; let failed = false; try { harden(o); } catch { failed = true; } const open = !Object.isFrozen(late); \
         fails = false; harden(o); failed && open && Object.isFrozen(late)",
    ]);
    fail(&["harden(new Proxy({}, { preventExtensions: () => false }))"]);
}

/// Bundled libraries give their objects methods with the names of intrinsics by assignment.
#[test]
fn heirs_of_intrinsics_may_be_assigned_what_those_have() {
    hold(&[
        "'use strict'; const o = {}; for (const name of Object.getOwnPropertyNames(Object.prototype)) if (name !== '__proto__') o[name] = 1; Object.keys(o).length > 9",
        "'use strict'; function M() {} M.prototype = Object.create(Map.prototype); for (const name of ['get', 'set', 'has', 'forEach']) M.prototype[name] = () => name; new M().get() === 'get'",
        "'use strict'; const bytes = new Uint8Array(2); for (const name of ['slice', 'fill', 'indexOf', 'toString', 'set']) bytes[name] = () => name; bytes.set() === 'set'",
        "'use strict'; const list = [1]; list.push = () => 7; list.concat = () => 8; list[Symbol.iterator] = function* () { yield 9; }; [list.push(), list.concat(), ...list].join() === '7,8,9'",
        "'use strict'; class Mine extends Error { constructor() { super('m'); this.name = 'Mine'; this.toString = () => 'mine'; } } `${new Mine()}` === 'mine'",
        // Each time for the one object only.
        "new Map([[1, 2]]).get(1) === 2 && new Uint8Array([1, 2]).slice(1)[0] === 2 && [1].concat([2]).length === 2",
        "'use strict'; let failed = 0; for (const C of [Object, Map, Set, Array, Error]) for (const name of ['toString', 'get', 'push', 'add', 'message']) if (name in C.prototype) try { C.prototype[name] = 1; } catch { failed += 1; } failed === 9",
    ]);
}

#[test]
fn what_programs_do_to_the_stacks_of_other_engines_has_no_effect() {
    hold(&[
        "'use strict'; Error.stackTraceLimit = 0; Error.prepareStackTrace = () => 'prepared'; typeof Error('x').stack === 'string' && !Error('x').stack.includes('prepared') && Error('x').stack.includes(':')",
        "'use strict'; const o = {}; Error.captureStackTrace(o); const e = new TypeError('x'); Error.captureStackTrace(e, Error); typeof o.stack === 'string' && !Object.keys(o).length && !Object.hasOwn(e, 'stack')",
    ]);
}

#[test]
fn names_of_the_language_in_data_are_only_data() {
    let mut vat = Vat::start(
        "import { Far } from '@endo/far'; export const buildRootObject = () => Far('root', {
            look: x => [Object.getPrototypeOf(x) === Object.prototype, Object.keys(x).sort().join(), ({}).polluted === undefined].join() });",
    );
    for (data, seen) in [
        (r##"{"__proto__":{"polluted":1}}"##, "#\"true,__proto__,true\""),
        (r##"{"constructor":{"prototype":{"polluted":1}}}"##, "#\"true,constructor,true\""),
        (
            r##"{"toString":1,"valueOf":2,"hasOwnProperty":3}"##,
            "#\"true,hasOwnProperty,toString,valueOf,true\"",
        ),
        (r##"{"then":1}"##, "#\"true,then,true\""),
    ] {
        assert_eq!(vat.answer(&format!("#[\"look\",[{data}]]"), &[]).1, seen, "{data}");
    }
    // Nor do methods of the language answer calls.
    for method in ["constructor", "toString", "hasOwnProperty", "__proto__", "__defineGetter__", "valueOf"] {
        let (rejected, body, _) = vat.answer(&format!("#[\"{method}\",[\"x\"]]"), &[]);
        assert!(rejected && body.contains("target has no method"), "{method}: {body}");
    }
}

#[test]
fn what_one_vat_does_to_its_realm_another_does_not_feel() {
    let (tx, events) = std::sync::mpsc::channel();
    let workers = Workers::new(1, move |event| drop(tx.send(event)));
    let next = || events.recv_timeout(Duration::from_secs(20)).unwrap();
    let spoil = "for (const attempt of [() => { Object.prototype.polluted = 1; }, () => { globalThis.shared = 1; }, () => { Array.prototype.push = () => 0; },
        () => { Symbol.for('x').description; globalThis[Symbol.for('mark')] = 1; }, () => { exports.mark = 1; }, () => { console.mark = 1; }]) try { attempt(); } catch {}";
    let look = "import { Far } from '@endo/far'; const seen = [typeof shared, ({}).polluted, typeof globalThis[Symbol.for('mark')], exports.mark, console.mark, [].push(1)].join();
        export const buildRootObject = () => { if (seen !== 'undefined,,undefined,,,1') throw Error(seen); return Far('root', {}); };";
    let spoiler = format!(
        "import {{ Far }} from '@endo/far'; {spoil}; export const buildRootObject = () => Far('root', {{}});"
    );
    for (id, source) in [(1, spoiler.as_str()), (2, look)] {
        workers.start(start_of(id, source, VatLimits::default(), Vec::new())).unwrap();
        match next() {
            VatEvent::Started { vat, result, .. } => {
                assert!(vat == VatId(id) && result.is_ok(), "{id}: {result:?}")
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}
